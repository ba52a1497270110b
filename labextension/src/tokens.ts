/** What the plugins share. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';

import type { Client } from './api/client';
import type { Events } from './api/events';
import type { Jobs } from './model/jobs';
import type { WindowsModel } from './model/windows';

/** The way to the server, what changes there, and the list of windows: one of each. */
export interface ICWM {
  readonly client: Client;
  readonly events: Events;
  readonly jobs: Jobs;
  readonly windows: WindowsModel;
  readonly trans: TranslationBundle;
}

export const ICWM = new Token<ICWM>(
  'cwm-jupyter:ICWM',
  'The server extension of cwm-jupyter: its API, its events and its windows.'
);
