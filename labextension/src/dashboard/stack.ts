/** The stack: how its servers are, start, stop and logs. */
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';

import { told } from '../api/errors';
import type { JobView, LogTail, StackStatus } from '../api/types';
import { age, bytes } from '../format';
import type { ICWM } from '../tokens';
import { button, element, table } from '../dom';
import { Section } from './section';
import { phase } from './tiles';

const LINES = 200;

export class Stack extends Section {
  constructor(private readonly cwm: ICWM) {
    super(cwm.trans.__('Stack'), ['statistics', 'job']);
    const { trans } = cwm;
    this.state.setAttribute('role', 'status');
    this.start = button(trans.__('Start'), () => void this.ask('start'));
    this.stop = button(trans.__('Stop…'), () => void this.ask('stop'));
    this.part.setAttribute('aria-label', trans.__('Log of'));
    this.part.append(new Option('vLLM', 'vllm'), new Option('LMCache', 'lmcache'));
    this.part.onchange = () => void this.readLog();
    this.log.tabIndex = 0;
    this.log.setAttribute('role', 'log');
    this.log.setAttribute('aria-live', 'off'); // it would never be silent
    this.log.setAttribute('aria-label', trans.__('The last lines of the log'));
    this.logs.append(element('summary', '', trans.__('Logs')), this.part, this.log);
    this.logs.ontoggle = () => void this.readLog();
    this.body.append(
      element('div', 'cwm-Actions', this.state, this.start, this.stop),
      this.parts,
      this.logs
    );
  }

  protected async load(): Promise<void> {
    const { client, trans } = this.cwm;
    const status = await client.get<StackStatus>('stack');
    const said = status.model ? `${phase(status, trans)}, ${status.model}` : phase(status, trans);
    if (this.state.textContent !== said) {
      this.state.textContent = said;
    }
    this.start.disabled = status.phase !== 'down' && status.phase !== 'degraded';
    this.stop.disabled = status.phase === 'down';
    this.parts.replaceChildren(...(status.parts.length > 0 ? [this.table(status)] : []));
    await this.readLog();
  }

  private table(status: StackStatus): HTMLElement {
    const { trans } = this.cwm;
    return table(
      trans.__('Servers'),
      [
        { head: trans.__('Server'), cell: part => part.name },
        { head: trans.__('State'), cell: part => part.phase },
        {
          head: trans.__('Since'),
          cell: part => (part.since === null ? '–' : age(part.since, trans))
        },
        { head: trans.__('Memory'), number: true, cell: part => bytes(part.memory_bytes) },
        { head: trans.__('Address'), cell: part => part.url ?? '–' }
      ],
      status.parts
    );
  }

  private async ask(what: 'start' | 'stop'): Promise<void> {
    const { trans, client, jobs } = this.cwm;
    if (what === 'stop') {
      const sure = await showDialog({
        title: trans.__('Stop the stack?'),
        body: trans.__(
          'Everybody who uses it is cut off. What is frozen stays; the engine’s own cache is lost.'
        ),
        buttons: [
          Dialog.cancelButton({ label: trans.__('Cancel') }),
          Dialog.warnButton({ label: trans.__('Stop') })
        ],
        defaultButton: 0
      });
      if (!sure.button.accept) {
        return;
      }
    }
    let job: JobView;
    try {
      job = await client.post<JobView>(`stack/${what}`, what === 'start' ? {} : undefined);
    } catch (error) {
      Notification.error(told(error), { autoClose: false });
      return;
    }
    const done = what === 'start' ? trans.__('The stack is up.') : trans.__('The stack is down.');
    // How it ended its notification tells.
    await jobs.follow(job, { done: () => done }).catch(() => undefined);
    await this.refresh();
  }

  private async readLog(): Promise<void> {
    if (!this.logs.open) {
      return;
    }
    let text: string;
    try {
      const tail = await this.cwm.client.get<LogTail>('stack/logs', {
        part: this.part.value,
        lines: LINES
      });
      text = tail.lines.join('\n') || this.cwm.trans.__('There is no log yet.');
    } catch (error) {
      text = told(error);
    }
    if (this.log.textContent !== text) {
      const followed = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
      this.log.textContent = text;
      if (followed) {
        this.log.scrollTop = this.log.scrollHeight;
      }
    }
  }

  private readonly state = element('span', 'cwm-Stack-state');
  private readonly start: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly parts = element('div');
  private readonly logs = element('details', 'cwm-Logs');
  private readonly part = element('select', 'cwm-Select');
  private readonly log = element('pre', 'cwm-Log');
}
