/** The plugins that JupyterLab finds here. */
import { api } from './api/plugin';
import { settings } from './settings';

export default [settings, api];
