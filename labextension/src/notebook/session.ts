/** The session of one notebook, asked of its kernel whenever a cell has run. */
import { NotebookActions, type Notebook, type NotebookPanel } from '@jupyterlab/notebook';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import { askKernel, UNKNOWN, type KernelFacts } from './kernel';

const sessions = new WeakMap<NotebookPanel, NotebookSession>();

/** The one object for a notebook, made when it is first wanted. */
export function sessionOf(panel: NotebookPanel): NotebookSession {
  let session = sessions.get(panel);
  if (session === undefined) {
    session = new NotebookSession(panel);
    sessions.set(panel, session);
  }
  return session;
}

export class NotebookSession {
  constructor(private readonly panel: NotebookPanel) {
    const { sessionContext } = panel;
    NotebookActions.executed.connect(this.ran, this);
    sessionContext.kernelChanged.connect(this.begin, this);
    sessionContext.statusChanged.connect(this.restarted, this);
    panel.disposed.connect(() => {
      NotebookActions.executed.disconnect(this.ran, this);
      Signal.clearData(this);
    });
    void sessionContext.ready.then(() => this.begin());
  }

  /** What the kernel said last. */
  get facts(): KernelFacts {
    return this._facts;
  }
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Ask now; whoever asks while an answer is due gets that one, and it is asked once more. */
  async ask(): Promise<KernelFacts> {
    if (this._asking !== null) {
      this._again = true;
      return this._asking;
    }
    this._asking = this.answer();
    try {
      return await this._asking;
    } finally {
      this._asking = null;
      if (this._again) {
        this._again = false;
        void this.ask();
      }
    }
  }

  private async answer(): Promise<KernelFacts> {
    const kernel = this.panel.sessionContext.session?.kernel;
    if (!kernel || this.panel.isDisposed) {
      return this.take(UNKNOWN);
    }
    try {
      const python = (await kernel.info).language_info.name === 'python';
      return this.take(python ? await askKernel(kernel) : UNKNOWN);
    } catch {
      return this.take(UNKNOWN); // the kernel died or was changed meanwhile
    }
  }

  private take(facts: KernelFacts): KernelFacts {
    if (!this.panel.isDisposed && JSON.stringify(facts) !== JSON.stringify(this._facts)) {
      this._facts = facts;
      this._changed.emit();
    }
    return facts;
  }

  private begin(): void {
    this.take(UNKNOWN);
    void this.ask();
  }

  private restarted(_: unknown, status: string): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      this.take(UNKNOWN);
    }
  }

  private ran(_: unknown, { notebook }: { notebook: Notebook }): void {
    if (notebook === this.panel.content) {
      void this.ask();
    }
  }

  private readonly _changed = new Signal<this, void>(this);
  private _facts = UNKNOWN;
  private _asking: Promise<KernelFacts> | null = null;
  private _again = false;
}
