/** The gauge beside the freeze button, and what each notebook's kernel says of its session. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IToolbarWidgetRegistry } from '@jupyterlab/apputils';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';

import { CommandIDs } from '../commands';
import { ISettings, type Settings } from '../settings';
import { ICWM } from '../tokens';
import { IVersion, type Version } from '../version';
import { Gauge } from './gauge';
import { sessionOf } from './session';

export const notebook: JupyterFrontEndPlugin<void> = {
  id: 'cwm-jupyter:notebook',
  description: 'Shows in a notebook’s toolbar how full its context is.',
  autoStart: true,
  requires: [ICWM, IVersion, ISettings, INotebookTracker],
  optional: [IToolbarWidgetRegistry],
  activate: (
    app: JupyterFrontEnd,
    cwm: ICWM,
    version: Version,
    settings: Settings,
    tracker: INotebookTracker,
    toolbars: IToolbarWidgetRegistry | null
  ): void => {
    // Where it stands is the schema's matter, and so the user's.
    toolbars?.addFactory<NotebookPanel>(
      'Notebook',
      'cwm-gauge',
      panel => new Gauge(sessionOf(panel), settings, cwm.trans)
    );
    const look = (): void => {
      const panel = tracker.currentWidget;
      version.kernelLooksAt(panel === null ? null : sessionOf(panel).facts.home);
      app.commands.notifyCommandChanged(CommandIDs.freeze);
    };
    tracker.widgetAdded.connect((_, panel) => {
      sessionOf(panel).changed.connect(look);
    });
    tracker.currentChanged.connect(look);
  }
};
