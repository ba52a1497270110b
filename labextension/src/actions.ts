/** What can be done with windows: commands, and the plugin that registers them. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, Dialog, ICommandPalette, Notification, showDialog } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { part } from './api/client';
import { told } from './api/errors';
import type {
  FreezeReport,
  JobView,
  RepairReport,
  VerifyReport,
  WarmReport,
  Window
} from './api/types';
import { CommandIDs } from './commands';
import { ask, type Field } from './dialogs';
import { freezeIcon, windowsIcon } from './icons';
import type { Telling } from './model/jobs';
import { nameProblem, tagProblem, tagsIn, thawLine } from './names';
import { insertAndRun, LOAD, writeNotebook } from './notebook/cells';
import { sessionOf } from './notebook/session';
import { ICWM } from './tokens';
import { IVersion, type Version } from './version';
import { knownAs } from './windows';

const GOOD_NEWS_MS = 8_000;

/** The commands' work, apart from how they are registered. */
class Actions {
  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly cwm: ICWM,
    private readonly version: Version,
    private readonly tracker: INotebookTracker | null
  ) {}

  get notebook(): NotebookPanel | null {
    return this.tracker?.currentWidget ?? null;
  }

  async freeze(): Promise<void> {
    const { trans, client } = this.cwm;
    const panel = this.notebook!;
    const { session, home } = await sessionOf(panel).ask();
    if (session === null) {
      throw new Error(
        trans.__('Nothing has been said in this notebook yet: put a question under %%cwm first.')
      );
    }
    await this.version.check();
    if (home !== this.version.server?.home) {
      await ask(
        trans,
        trans.__('Freeze session %1', session.name),
        trans.__('Freeze'),
        [this.nameField(session.name)],
        ({ name }) => this.run(panel, thawLine(name.trim()).replace('%thaw', '%freeze'))
      );
      return;
    }
    const job = await ask(
      trans,
      trans.__('Freeze session %1', session.name),
      trans.__('Freeze'),
      [this.nameField(session.name), this.tagsField(''), this.noteField('')],
      ({ name, add_tags: tags, note }) =>
        client.post<JobView>('windows', {
          name: name.trim(),
          session: session.name,
          tags: tagsIn(tags),
          note
        })
    );
    if (job !== null) {
      const done = ({ window }: FreezeReport): string =>
        trans.__('Froze %1 as %2.', session.name, window.name);
      await this.followed(job, { done });
    }
  }

  async thawHere(window: Window): Promise<void> {
    await this.run(this.notebook!, thawLine(knownAs(window)));
  }

  async thawNew(window: Window): Promise<void> {
    const { trans } = this.cwm;
    const { contents, kernelspecs } = this.app.serviceManager;
    await kernelspecs.ready;
    const near = this.notebook;
    const specs = kernelspecs.specs;
    const name = near?.sessionContext.session?.kernel?.name ?? specs?.default;
    const spec = name === undefined ? undefined : specs?.kernelspecs[name];
    const path = await writeNotebook(
      contents,
      near === null ? '' : PathExt.dirname(near.context.path),
      spec ? { name: spec.name, display_name: spec.display_name, language: spec.language } : null,
      [LOAD, thawLine(knownAs(window))]
    );
    const opened = (await this.app.commands.execute('docmanager:open', {
      path,
      ...(spec && { kernel: { name: spec.name } })
    })) as NotebookPanel | undefined;
    if (opened?.context === undefined) {
      // Notebook 7 opens it in a tab of its own, out of our reach.
      Notification.info(trans.__('Run the cells of %1 to thaw %2.', path, knownAs(window)));
      return;
    }
    await opened.context.ready;
    await opened.sessionContext.ready;
    await NotebookActions.runAll(opened.content, opened.sessionContext);
  }

  async inspect(window: Window): Promise<void> {
    await this.app.commands.execute(CommandIDs.openDashboard, { window: window.id });
  }

  async clone(window: Window): Promise<void> {
    const { trans, client } = this.cwm;
    const made = await ask(
      trans,
      trans.__('Clone %1', knownAs(window)),
      trans.__('Clone'),
      [this.nameField(`${window.name}-2`), this.tagsField(window.tags.join(' '))],
      ({ name, add_tags: tags }) =>
        client.post<Window>(`windows/${part(window.id)}/clone`, {
          name: name.trim(),
          tags: tagsIn(tags)
        })
    );
    if (made !== null) {
      this.changed(made, trans.__('Cloned %1 as %2.', knownAs(window), made.name));
    }
  }

  async rename(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.edit(window, trans.__('Rename %1', window.name), trans.__('Rename'), [
      this.nameField(window.name)
    ]);
  }

  async tags(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.edit(window, trans.__('Tags of %1', knownAs(window)), trans.__('Save'), [
      this.tagsField(window.tags.join(' '))
    ]);
  }

  async note(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.edit(window, trans.__('Note on %1', knownAs(window)), trans.__('Save'), [
      this.noteField(window.note)
    ]);
  }

  async pin(window: Window): Promise<void> {
    this.changed(await this.patch(window, { pinned: !window.pinned }), null);
  }

  async verify(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.job<VerifyReport>(window, 'verify', {
      good: report => report.intact,
      done: ({ windows: [found] }) =>
        found.state === 'intact'
          ? trans._n(
              'Read %1 chunk of %2: all intact.',
              'Read %1 chunks of %2: all intact.',
              found.chunks,
              found.window
            )
          : (found.problem ??
            trans.__(
              '%1 is damaged: of %2 chunks %3 are missing and %4 corrupt. Repair it.',
              found.window,
              found.chunks,
              found.chunks_missing,
              found.chunks_corrupt
            ))
    });
  }

  async prefetch(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.job<WarmReport>(window, 'prefetch', {
      good: report => report.chunks_found === report.chunks_expected,
      done: report =>
        trans.__(
          '%1: %2 of %3 chunks are in LMCache’s memory.',
          knownAs(window),
          report.chunks_found,
          report.chunks_expected
        )
    });
  }

  async repair(window: Window): Promise<void> {
    const { trans } = this.cwm;
    await this.job<RepairReport>(window, 'repair', {
      good: report => report.window.state === 'intact',
      done: report =>
        trans.__(
          'Repaired %1: %2 chunks computed to the bit, %3 recomputed, %4 relinked.',
          knownAs(window),
          report.chunks_bit_equal,
          report.chunks_recomputed,
          report.chunks_relinked
        )
    });
  }

  async remove(window: Window): Promise<void> {
    const { trans, client, windows } = this.cwm;
    const sure = await showDialog({
      title: trans.__('Delete %1?', knownAs(window)),
      body: trans.__('It can be brought back until it is purged.'),
      buttons: [
        Dialog.cancelButton({ label: trans.__('Cancel') }),
        Dialog.warnButton({ label: trans.__('Delete') })
      ],
      defaultButton: 0
    });
    if (!sure.button.accept) {
      return;
    }
    const deleted = await client.delete<Window>(`windows/${part(window.id)}`);
    windows.refresh();
    Notification.success(trans.__('Deleted %1.', knownAs(window)), {
      autoClose: 15_000,
      actions: [
        {
          label: trans.__('Undo'),
          callback: () => {
            void this.telling(() => this.undo(deleted));
          }
        }
      ]
    });
  }

  async undo(window: Window): Promise<void> {
    const back = await this.cwm.client.post<Window>(`windows/${part(window.id)}/undo`);
    this.changed(back, this.cwm.trans.__('%1 is back.', knownAs(back)));
  }

  /** Show an error to the user instead of in the browser's console. */
  async telling(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      Notification.error(told(error), { autoClose: false });
    }
  }

  private async job<T>(window: Window, what: string, telling: Telling<T>): Promise<void> {
    const path = `windows/${part(window.id)}/${what}`;
    await this.followed(await this.cwm.client.post<JobView>(path), telling);
  }

  private async followed<T>(job: JobView, telling: Telling<T>): Promise<void> {
    try {
      await this.cwm.jobs.follow<T>(job, telling);
    } catch {
      // The job's notification has told it.
    }
    this.cwm.windows.refresh();
  }

  private async run(panel: NotebookPanel, line: string): Promise<void> {
    const { magics } = await sessionOf(panel).ask();
    await insertAndRun(panel, magics ? line : `${LOAD}\n${line}`);
  }

  private async edit(
    window: Window,
    title: string,
    accept: string,
    fields: Field[]
  ): Promise<void> {
    const changed = await ask(this.cwm.trans, title, accept, fields, async values => {
      const change: Record<string, unknown> = {};
      if (values['name'] !== undefined && values['name'].trim() !== window.name) {
        change['name'] = values['name'].trim();
      }
      if (values['note'] !== undefined && values['note'] !== window.note) {
        change['note'] = values['note'];
      }
      if (values['add_tags'] !== undefined) {
        const wanted = tagsIn(values['add_tags']);
        change['add_tags'] = wanted.filter(tag => !window.tags.includes(tag));
        change['remove_tags'] = window.tags.filter(tag => !wanted.includes(tag));
      }
      const any = Object.values(change).some(value => !Array.isArray(value) || value.length > 0);
      return any ? this.patch(window, change) : window;
    });
    if (changed !== null && changed !== window) {
      this.changed(changed, null);
    }
  }

  private patch(window: Window, change: object): Promise<Window> {
    return this.cwm.client.patch<Window>(`windows/${part(window.id)}`, change);
  }

  private changed(window: Window, news: string | null): void {
    this.cwm.windows.current = window;
    this.cwm.windows.refresh();
    if (news !== null) {
      Notification.success(news, { autoClose: GOOD_NEWS_MS });
    }
  }

  private nameField(value: string): Field {
    const { trans } = this.cwm;
    return {
      key: 'name',
      label: trans.__('Name'),
      value,
      check: name => nameProblem(name.trim(), trans)
    };
  }

  private tagsField(value: string): Field {
    const { trans } = this.cwm;
    return {
      key: 'add_tags',
      label: trans.__('Tags'),
      value,
      placeholder: trans.__('none'),
      help: trans.__('Separated by spaces.'),
      check: tags => {
        const wrong = tagsIn(tags).find(tag => tagProblem(tag, trans) !== null);
        return wrong === undefined ? null : `${wrong}: ${tagProblem(wrong, trans)}`;
      }
    };
  }

  private noteField(value: string): Field {
    const { trans } = this.cwm;
    return {
      key: 'note',
      label: trans.__('Note'),
      value,
      lines: 4,
      placeholder: trans.__('what it is about')
    };
  }
}

/** How one command about a window is registered. */
interface About {
  id: string;
  label: string | ((window: Window | null) => string);
  run: (window: Window) => Promise<void>;
  /** Whether it can be done with this one. */
  can: (window: Window) => boolean;
  /** Whether it needs a notebook. */
  here?: boolean;
}

export const actions: JupyterFrontEndPlugin<void> = {
  id: 'cwm-jupyter:actions',
  description: 'Commands to freeze, thaw, clone, change and delete windows.',
  autoStart: true,
  requires: [ICWM, IVersion],
  optional: [INotebookTracker, ICommandPalette, ILauncher],
  activate: (
    app: JupyterFrontEnd,
    cwm: ICWM,
    version: Version,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null
  ): void => {
    const { trans, windows } = cwm;
    const { commands } = app;
    const actions = new Actions(app, cwm, version, tracker);
    const category = trans.__('Context windows');
    const kept = (window: Window): boolean => window.state !== 'deleted';

    commands.addCommand(CommandIDs.freeze, {
      label: trans.__('Freeze This Notebook’s Session…'),
      caption: () =>
        actions.notebook !== null && sessionOf(actions.notebook).facts.session === null
          ? trans.__('Freeze: nothing has been said in this notebook yet')
          : trans.__('Freeze this notebook’s session'),
      icon: freezeIcon,
      isEnabled: () =>
        actions.notebook !== null && sessionOf(actions.notebook).facts.session !== null,
      execute: () => actions.telling(() => actions.freeze())
    });
    palette?.addItem({ command: CommandIDs.freeze, category });

    for (const about of aboutWindows(actions, cwm, kept)) {
      commands.addCommand(about.id, command(about, actions, cwm));
      palette?.addItem({ command: about.id, category });
    }
    windows.currentChanged.connect(() => commands.notifyCommandChanged());
    launcher?.add({ command: CommandIDs.showWindows, category: trans.__('Other'), rank: 10 });
  }
};

function aboutWindows(
  actions: Actions,
  { trans }: ICWM,
  kept: (window: Window) => boolean
): About[] {
  return [
    {
      id: CommandIDs.thawHere,
      label: trans.__('Thaw Here'),
      run: window => actions.thawHere(window),
      can: kept,
      here: true
    },
    {
      id: CommandIDs.thawNew,
      label: trans.__('Thaw into New Notebook'),
      run: window => actions.thawNew(window),
      can: kept
    },
    {
      id: CommandIDs.inspect,
      label: trans.__('Show in Dashboard'),
      run: window => actions.inspect(window),
      can: kept
    },
    {
      id: CommandIDs.clone,
      label: trans.__('Clone…'),
      run: window => actions.clone(window),
      can: kept
    },
    {
      id: CommandIDs.rename,
      label: trans.__('Rename…'),
      run: window => actions.rename(window),
      can: window => kept(window) && !window.superseded
    },
    {
      id: CommandIDs.tags,
      label: trans.__('Tags…'),
      run: window => actions.tags(window),
      can: kept
    },
    {
      id: CommandIDs.note,
      label: trans.__('Note…'),
      run: window => actions.note(window),
      can: kept
    },
    {
      id: CommandIDs.pin,
      label: window => (window?.pinned ? trans.__('Unpin') : trans.__('Pin')),
      run: window => actions.pin(window),
      can: kept
    },
    {
      id: CommandIDs.verify,
      label: trans.__('Verify'),
      run: window => actions.verify(window),
      can: kept
    },
    {
      id: CommandIDs.prefetch,
      label: trans.__('Prefetch'),
      run: window => actions.prefetch(window),
      can: kept
    },
    {
      id: CommandIDs.repair,
      label: trans.__('Repair'),
      run: window => actions.repair(window),
      can: window => window.state === 'damaged'
    },
    {
      id: CommandIDs.copyThaw,
      label: window => trans.__('Copy “%1”', thawLine(window === null ? 'NAME' : knownAs(window))),
      run: async window => Clipboard.copyToSystem(thawLine(knownAs(window))),
      can: kept
    },
    {
      id: CommandIDs.remove,
      label: trans.__('Delete'),
      run: window => actions.remove(window),
      can: kept
    },
    {
      id: CommandIDs.undo,
      label: trans.__('Undo Delete'),
      run: window => actions.undo(window),
      can: window => window.state === 'deleted'
    }
  ];
}

/** A command about the window that is chosen in the list. */
function command(about: About, actions: Actions, cwm: ICWM): CommandRegistry.ICommandOptions {
  const chosen = (): Window | null => cwm.windows.current;
  const { label } = about;
  const named = typeof label === 'string' ? label : (): string => label(chosen());
  return {
    label: (args: ReadonlyPartialJSONObject): string => {
      const text = typeof named === 'string' ? named : named();
      const window = chosen();
      return args['isPalette'] && window !== null ? `${text} (${knownAs(window)})` : text;
    },
    isEnabled: () => {
      const window = chosen();
      return window !== null && about.can(window) && (!about.here || actions.notebook !== null);
    },
    isVisible: () => {
      const window = chosen();
      return window === null || about.can(window);
    },
    execute: async () => {
      const window = chosen();
      if (window !== null) {
        await actions.telling(() => about.run(window));
      }
    },
    ...(about.id === CommandIDs.inspect && { icon: windowsIcon })
  };
}
