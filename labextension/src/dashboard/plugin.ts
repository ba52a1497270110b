/** Opens the dashboard, in Lab's main area or, in Notebook 7, on the right. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import {
  ICommandPalette,
  IThemeManager,
  MainAreaWidget,
  WidgetTracker
} from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';

import { CommandIDs } from '../commands';
import { windowsIcon } from '../icons';
import { ICWM } from '../tokens';
import { IVersion, type Version } from '../version';
import { Dashboard } from './dashboard';

export const dashboard: JupyterFrontEndPlugin<void> = {
  id: 'cwm-jupyter:dashboard',
  description: 'The cache dashboard: what is kept, what it costs and what it saves.',
  autoStart: true,
  requires: [ICWM, IVersion],
  optional: [ILabShell, ILayoutRestorer, ICommandPalette, ILauncher, IThemeManager],
  activate: (
    app: JupyterFrontEnd,
    cwm: ICWM,
    version: Version,
    lab: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    themes: IThemeManager | null
  ): void => {
    const { trans } = cwm;
    const { commands, shell } = app;
    const tracker = new WidgetTracker<MainAreaWidget<Dashboard>>({ namespace: 'cwm-dashboard' });

    const open = (): MainAreaWidget<Dashboard> => {
      const content = new Dashboard(cwm, version, commands, themes);
      const widget = new MainAreaWidget({ content });
      // Lab calls every one of them "main area content".
      content.node.setAttribute('aria-label', trans.__('Cache dashboard'));
      widget.id = 'cwm-dashboard';
      widget.title.label = trans.__('Cache Dashboard');
      widget.title.icon = windowsIcon;
      widget.title.closable = true;
      void tracker.add(widget);
      return widget;
    };

    commands.addCommand(CommandIDs.openDashboard, {
      label: trans.__('Cache Dashboard'),
      caption: trans.__('What is kept, what it costs and what it saves'),
      icon: windowsIcon,
      execute: args => {
        const widget = tracker.currentWidget ?? open();
        if (!widget.isAttached) {
          shell.add(widget, lab === null ? 'right' : 'main', { type: 'Cache Dashboard' });
        }
        shell.activateById(widget.id);
        if (typeof args['window'] === 'string') {
          widget.content.choose(args['window']);
        }
        return widget;
      }
    });
    palette?.addItem({
      command: CommandIDs.openDashboard,
      category: trans.__('Context windows')
    });
    launcher?.add({ command: CommandIDs.openDashboard, category: trans.__('Other'), rank: 11 });
    void restorer?.restore(tracker, {
      command: CommandIDs.openDashboard,
      name: () => 'cwm-dashboard',
      args: () => (cwm.windows.current === null ? {} : { window: cwm.windows.current.id })
    });
    cwm.windows.currentChanged.connect(() => tracker.forEach(widget => void tracker.save(widget)));
  }
};
