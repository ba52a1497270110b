/** The plugins that JupyterLab finds here. */
import { actions } from './actions';
import { api } from './api/plugin';
import { dashboard } from './dashboard/plugin';
import { notebook } from './notebook/plugin';
import { settings } from './settings';
import { sidebar } from './sidebar/plugin';
import { version } from './version';

export default [settings, api, version, actions, notebook, sidebar, dashboard];
