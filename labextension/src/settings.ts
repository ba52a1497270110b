/** The settings, as Lab's editor shows them. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

/** The id of the schema, `schema/plugin.json`, and so of the plugin that reads it. */
const ID = 'cwm-jupyter:plugin';

/** What the user has set; the defaults until that is read, and where there is no registry. */
export class Settings {
  /** Milliseconds between two looks at the server where it cannot send changes. */
  pollMs = 5_000;
  showGauge = true;

  /** One of them is another one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  follow(settings: ISettingRegistry.ISettings): void {
    const take = (): void => {
      this.pollMs = 1_000 * (settings.get('pollSeconds').composite as number);
      this.showGauge = settings.get('showGauge').composite as boolean;
      this._changed.emit();
    };
    settings.changed.connect(take);
    take();
  }

  private readonly _changed = new Signal<this, void>(this);
}

export const ISettings = new Token<Settings>('cwm-jupyter:ISettings', 'What the user has set.');

export const settings: JupyterFrontEndPlugin<Settings> = {
  id: ID,
  description: 'The settings of the context windows.',
  autoStart: true,
  provides: ISettings,
  optional: [ISettingRegistry],
  activate: (_: JupyterFrontEnd, registry: ISettingRegistry | null): Settings => {
    const settings = new Settings();
    registry?.load(ID).then(
      loaded => settings.follow(loaded),
      error => console.warn(`${ID}: the defaults hold:`, error)
    );
    return settings;
  }
};
