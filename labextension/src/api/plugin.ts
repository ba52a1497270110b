/** The plugin that the others build on: it offers what they share. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Jobs } from '../model/jobs';
import { WindowsModel } from '../model/windows';
import { ISettings, type Settings } from '../settings';
import { ICWM } from '../tokens';
import { Client } from './client';
import { Events } from './events';

export const api: JupyterFrontEndPlugin<ICWM> = {
  id: 'cwm-jupyter:api',
  description: 'The way to the server extension, what changes there, and the list of windows.',
  autoStart: true,
  provides: ICWM,
  requires: [ISettings],
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, settings: Settings, translator: ITranslator | null): ICWM => {
    const trans = (translator ?? nullTranslator).load('cwm_jupyter');
    const client = new Client(app.serviceManager.serverSettings);
    const events = new Events({ client, page: document, pollMs: () => settings.pollMs });
    const windows = new WindowsModel(client, events);
    return { client, events, windows, trans, jobs: new Jobs(client, events, Notification, trans) };
  }
};
