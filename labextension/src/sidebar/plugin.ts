/** The list of windows in the left sidebar. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';

import { CommandIDs } from '../commands';
import { windowsIcon } from '../icons';
import { ICWM } from '../tokens';
import { IVersion, type Version } from '../version';
import { Sidebar } from './sidebar';

export const sidebar: JupyterFrontEndPlugin<void> = {
  id: 'cwm-jupyter:sidebar',
  description: 'Lists the context windows in the left sidebar.',
  autoStart: true,
  requires: [ICWM, IVersion],
  optional: [ILayoutRestorer, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    cwm: ICWM,
    version: Version,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ): void => {
    const { trans } = cwm;
    const sidebar = new Sidebar(cwm, version, app.commands);
    sidebar.id = 'cwm-windows';
    sidebar.title.icon = windowsIcon;
    sidebar.title.caption = trans.__('Context windows');
    sidebar.node.setAttribute('role', 'region');
    sidebar.node.setAttribute('aria-label', trans.__('Context windows'));
    app.shell.add(sidebar, 'left', { rank: 600, type: 'Context windows' });
    restorer?.add(sidebar, sidebar.id);
    app.commands.addCommand(CommandIDs.showWindows, {
      label: trans.__('Context Windows'),
      caption: trans.__('List the context windows that are kept'),
      icon: windowsIcon,
      execute: () => {
        app.shell.activateById(sidebar.id);
      }
    });
    palette?.addItem({ command: CommandIDs.showWindows, category: trans.__('Context windows') });
  }
};
