/** What the server is doing and has done: jobs, and the audit log's last lines. */
import { Notification } from '@jupyterlab/apputils';

import { told } from '../api/errors';
import type { AuditReport, JobListing, JobView } from '../api/types';
import { moment } from '../format';
import type { ICWM } from '../tokens';
import { button, element, table } from '../dom';
import { Section } from './section';
import { duration } from './tiles';

const MOST_JOBS = 8;
const LINES = 20;

export class JobsSection extends Section {
  constructor(private readonly cwm: ICWM) {
    super(cwm.trans.__('Jobs'), ['job']);
  }

  protected async load(): Promise<void> {
    const { client, trans } = this.cwm;
    const { items } = await client.get<JobListing>('jobs');
    if (items.length === 0) {
      this.body.replaceChildren(element('p', 'cwm-Hint', trans.__('None since the server began.')));
      return;
    }
    this.body.replaceChildren(
      table(
        trans.__('Latest jobs'),
        [
          { head: trans.__('Job'), cell: job => job.what },
          { head: trans.__('State'), cell: job => this.state(job) },
          {
            head: trans.__('Took'),
            number: true,
            cell: job => duration(job.elapsed_s, trans)
          }
        ],
        items.slice(0, MOST_JOBS)
      )
    );
  }

  private state(job: JobView): Node | string {
    const { trans } = this.cwm;
    if (job.state !== 'running') {
      const error = job.error as { message?: string } | null;
      return error?.message ?? job.state;
    }
    const bar = element('progress');
    bar.setAttribute('aria-label', job.what);
    if (job.total) {
      bar.max = job.total;
      bar.value = Math.min(job.done, job.total);
    }
    const stop = button(trans.__('Stop'), () => {
      this.cwm.client.delete(`jobs/${job.id}`).catch(error => {
        Notification.error(told(error));
      });
    });
    stop.disabled = job.cancelling;
    return element('span', 'cwm-Running', bar, job.stage, stop);
  }
}

export class AuditSection extends Section {
  constructor(private readonly cwm: ICWM) {
    super(cwm.trans.__('Latest changes'), ['index']);
  }

  protected async load(): Promise<void> {
    const { client, trans } = this.cwm;
    const { records, intact } = await client.get<AuditReport>('audit', { last: LINES });
    const whole =
      intact === false
        ? element('p', 'cwm-Problem', trans.__('The audit log is not as it was written.'))
        : element('p', 'cwm-Hint', trans.__('From the audit log, the newest first.'));
    this.body.replaceChildren(
      whole,
      table(
        trans.__('Latest changes'),
        [
          { head: trans.__('When'), cell: ({ line }) => moment(line.time) },
          { head: trans.__('What'), cell: ({ line }) => line.action },
          { head: trans.__('Of'), cell: ({ line }) => Object.values(line.names).flat().join(', ') },
          { head: trans.__('Result'), cell: ({ line }) => line.result }
        ],
        [...records].reverse()
      )
    );
  }
}
