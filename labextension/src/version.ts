/** The handshake: what answers below the API's root, and whether it is what we were written for. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import { API_VERSION, type Client } from './api/client';
import { CWMError } from './api/errors';
import type { VersionView } from './api/types';
import { ICWM } from './tokens';

/** What the server is, and what is to be done where it does not fit. */
export class Version {
  constructor(
    private readonly client: Pick<Client, 'get'>,
    private readonly trans: TranslationBundle,
    private readonly warn: (message: string) => void
  ) {}

  /** What answers; null: nothing yet. */
  get server(): VersionView | null {
    return this._server;
  }
  /** Why nothing works here, and what to do; null: it fits, or is not known. */
  get problem(): string | null {
    return this._problem;
  }
  /** That the present kernel looks at another home, and what to do; null: it does not. */
  get elsewhere(): string | null {
    return this._elsewhere;
  }
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Ask the server; a new problem is told in a notification, once. */
  async check(): Promise<void> {
    try {
      this._server = await this.client.get<VersionView>('version');
      this.settle(this.misfit(this._server.api_version));
    } catch (error) {
      if (error instanceof CWMError && error.status === 404) {
        this._server = null;
        this.settle(this.missing());
      } // anything else is no matter of versions: whoever asks next is told
    }
    this.compare();
  }

  /** Take notice of the home that the present notebook's kernel looks at; null: of none. */
  kernelLooksAt(home: string | null): void {
    if (home !== this._kernelHome) {
      this._kernelHome = home;
      this.compare();
    }
  }

  private misfit(version: number): string | null {
    if (version === API_VERSION) {
      return null;
    }
    const { trans } = this;
    return version > API_VERSION
      ? trans.__(
          'The server extension of cwm-jupyter is newer than this page. Reload the page; if that does not help, upgrade cwm-jupyter where JupyterLab is installed.'
        )
      : trans.__(
          'The server extension of cwm-jupyter is older than this page. Upgrade it in the server’s environment (pip install -U cwm-jupyter) and restart the Jupyter server.'
        );
  }

  private missing(): string {
    return this.trans.__(
      'The server extension of cwm-jupyter does not answer: it is not enabled here, or of another version. Install cwm-jupyter in the Jupyter server’s environment, see that "jupyter server extension list" has it, and restart the server.'
    );
  }

  private compare(): void {
    const home = this._server?.home ?? null;
    const kernels = this._kernelHome;
    const differ = home !== null && kernels !== null && home !== kernels;
    const elsewhere = differ
      ? this.trans.__(
          'This notebook’s kernel keeps its windows in %1; those of %2 are shown here. Set CWM_HOME alike for both, and restart them.',
          kernels,
          home
        )
      : null;
    if (elsewhere !== this._elsewhere) {
      this._elsewhere = elsewhere;
      this.tell(elsewhere);
    }
    this._changed.emit();
  }

  private settle(problem: string | null): void {
    if (problem !== this._problem) {
      this._problem = problem;
      this.tell(problem);
    }
  }

  private tell(message: string | null): void {
    if (message !== null && !this._told.has(message)) {
      this._told.add(message);
      this.warn(message);
    }
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _told = new Set<string>();
  private _server: VersionView | null = null;
  private _problem: string | null = null;
  private _elsewhere: string | null = null;
  private _kernelHome: string | null = null;
}

export const IVersion = new Token<Version>('cwm-jupyter:IVersion', 'What the server is.');

export const version: JupyterFrontEndPlugin<Version> = {
  id: 'cwm-jupyter:version',
  description: 'Compares versions with the server extension, and says what to do if they differ.',
  autoStart: true,
  provides: IVersion,
  requires: [ICWM],
  activate: (app: JupyterFrontEnd, cwm: ICWM): Version => {
    const warn = (message: string): void => {
      Notification.warning(message, { autoClose: false });
    };
    const version = new Version(cwm.client, cwm.trans, warn);
    void app.restored.then(() => version.check());
    cwm.events.opened.connect(() => void version.check());
    return version;
  }
};
