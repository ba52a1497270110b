/** The plugins that JupyterLab finds here. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

const about: JupyterFrontEndPlugin<void> = {
  id: 'cwm-jupyter:plugin',
  autoStart: true,
  activate: () => undefined
};

export default [about];
