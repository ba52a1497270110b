/** Long work on the server, followed in Lab's notifications. */
import type { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Client } from '../api/client';
import { CWMError, told } from '../api/errors';
import type { Events } from '../api/events';
import type { JobView } from '../api/types';

/** Work that is over within it is not worth a notification of its progress. */
const QUIET_MS = 800;
const GOOD_NEWS_MS = 6_000;

/** What a job's end is told with. */
export interface Telling<T> {
  /** The good news in a line; null: none is told. */
  done?: (result: T) => string | null;
  /** Whether the result is good news, or one to look at; without it, good. */
  good?: (result: T) => boolean;
  /** Buttons beside it. */
  actions?: (result: T) => Notification.IAction[];
}

/** Lab's notifications, or what stands for them in a test. */
export type Notices = Pick<typeof Notification, 'emit' | 'update' | 'dismiss'>;

/** Follows jobs to their end. */
export class Jobs {
  constructor(
    private readonly client: Pick<Client, 'get' | 'delete'>,
    private readonly events: Pick<Events, 'watch' | 'job' | 'opened'>,
    private readonly notices: Notices,
    private readonly trans: TranslationBundle
  ) {}

  /**
   * Wait for a job's end, with its progress and a way to stop it in a notification.
   *
   * Returns its result, or throws the CWMError in which it ended. The end is told already: who
   * calls this need not show it.
   */
  async follow<T>(job: JobView, telling: Telling<T> = {}): Promise<T> {
    const shown = new Progress(job, this.notices, this.trans, () => this.cancel(job.id));
    try {
      const ended = await this.ended(job, view => shown.show(view));
      if (ended.state !== 'done') {
        throw CWMError.of(ended.error, 0);
      }
      const result = ended.result as T;
      const news = telling.done ? telling.done(result) : this.trans.__('Done: %1.', job.what);
      shown.end(
        telling.good?.(result) === false ? 'warning' : 'success',
        news,
        telling.actions?.(result)
      );
      return result;
    } catch (error) {
      const stopped = error instanceof CWMError && error.code === 'job.cancelled';
      shown.end(stopped ? 'info' : 'error', told(error));
      throw error;
    }
  }

  private ended(job: JobView, changed: (view: JobView) => void): Promise<JobView> {
    return new Promise((resolve, reject) => {
      const watching = this.events.watch();
      const end = (): void => {
        this.events.job.disconnect(hear);
        this.events.opened.disconnect(ask);
        watching.dispose();
      };
      const look = (view: JobView): void => {
        changed(view);
        if (view.state !== 'running') {
          end();
          resolve(view);
        }
      };
      const hear = (_: unknown, view: JobView): void => {
        if (view.id === job.id) {
          look(view);
        }
      };
      // It may have ended before the channel was open, and no one tells it again.
      const ask = (): void => {
        this.client.get<JobView>(`jobs/${job.id}`).then(look, error => {
          if (error instanceof CWMError && error.status === 404) {
            end(); // the server was started anew and knows nothing of it
            reject(error);
          }
        });
      };
      this.events.job.connect(hear);
      this.events.opened.connect(ask);
      ask();
    });
  }

  private cancel(id: string): void {
    this.client.delete(`jobs/${id}`).catch(error => {
      this.notices.emit(told(error), 'error', { autoClose: GOOD_NEWS_MS });
    });
  }
}

/** One job's notification. */
class Progress {
  constructor(
    job: JobView,
    private readonly notices: Notices,
    private readonly trans: TranslationBundle,
    private readonly cancel: () => void
  ) {
    this.latest = job;
    this.timer = setTimeout(() => this.begin(), QUIET_MS);
  }

  show(view: JobView): void {
    this.latest = view;
    if (this.id !== null && view.state === 'running') {
      this.notices.update({ id: this.id, message: this.message(), progress: share(view) });
    }
  }

  end(
    type: 'success' | 'info' | 'warning' | 'error',
    message: string | null,
    actions: Notification.IAction[] = []
  ): void {
    clearTimeout(this.timer);
    if (message === null) {
      if (this.id !== null) {
        this.notices.dismiss(this.id);
      }
      return;
    }
    const autoClose = type === 'error' || type === 'warning' ? (false as const) : GOOD_NEWS_MS;
    if (this.id === null) {
      this.notices.emit(message, type, { autoClose, actions });
    } else {
      this.notices.update({ id: this.id, message, type, autoClose, actions, progress: undefined });
    }
  }

  private begin(): void {
    this.id = this.notices.emit(this.message(), 'in-progress', {
      autoClose: false,
      progress: share(this.latest),
      actions: [{ label: this.trans.__('Stop'), callback: this.stop }]
    });
  }

  /** Lab takes a notification away when one of its buttons was pressed. */
  private readonly stop = (event: MouseEvent): void => {
    event.preventDefault();
    this.cancel();
  };

  private message(): string {
    const { what, stage, done, total, unit, cancelling } = this.latest;
    if (cancelling) {
      return this.trans.__('Stopping: %1', what);
    }
    const far = total === null ? '' : ` ${done} / ${total} ${unit}`;
    return stage ? `${what}: ${stage}${far}` : what;
  }

  private latest: JobView;
  private id: string | null = null;
  private readonly timer: ReturnType<typeof setTimeout>;
}

/** The share of the present stage that is done, as notifications want it. */
function share(view: JobView): number | undefined {
  return view.total ? Math.min(view.done / view.total, 1) : undefined;
}
