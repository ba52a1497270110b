/** The sidebar: controls, the list, and what is to be said instead of it or about it. */
import type { CommandRegistry } from '@lumino/commands';
import type { IDisposable } from '@lumino/disposable';
import type { Message } from '@lumino/messaging';
import { PanelLayout, Widget } from '@lumino/widgets';

import { told } from '../api/errors';
import type { Statistics } from '../api/types';
import { CommandIDs } from '../commands';
import { button, element, said } from '../dom';
import type { ICWM } from '../tokens';
import type { Version } from '../version';
import { Watching } from '../watching';
import { Header } from './header';
import { WindowList } from './list';

/** Ages are told in minutes at least. */
const AGES_MS = 60_000;

export class Sidebar extends Watching {
  constructor(
    private readonly cwm: ICWM,
    private readonly version: Version,
    commands: CommandRegistry
  ) {
    super();
    this.addClass('cwm-Sidebar');
    const { windows, events, trans } = cwm;
    this.header = new Header(windows, trans);
    this.list = new WindowList(windows, trans);
    this.list.opened.connect((_, window) => {
      const command = window.state === 'deleted' ? CommandIDs.undo : CommandIDs.inspect;
      void commands.execute(command);
    });
    this.notes.addClass('cwm-Notes');
    this.instead.addClass('cwm-Instead');
    this.status.addClass('cwm-Status');
    this.count.setAttribute('role', 'status');
    this.status.node.append(this.count, this.makeDeleted());
    const layout = new PanelLayout();
    for (const part of [this.header, this.notes, this.list, this.instead, this.status]) {
      layout.addWidget(part);
    }
    this.layout = layout;
    windows.changed.connect(this.tell, this);
    events.stateChanged.connect(this.tell, this);
    events.opened.connect(windows.refresh, windows);
    events.statistics.connect(this.heard, this);
    version.changed.connect(this.learned, this);
    this.tell();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.rest();
      const { windows, events } = this.cwm;
      windows.changed.disconnect(this.tell, this);
      events.stateChanged.disconnect(this.tell, this);
      events.opened.disconnect(windows.refresh, windows);
      events.statistics.disconnect(this.heard, this);
      this.version.changed.disconnect(this.learned, this);
      super.dispose();
    }
  }

  protected onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    if (this.list.isHidden) {
      this.header.focus();
    } else {
      this.list.node.focus();
    }
  }

  protected begin(): void {
    if (this.watching === null) {
      this.watching = this.cwm.events.watch();
      this.ages = setInterval(() => this.list.redraw(), AGES_MS);
      this.cwm.windows.show({ first: 0, last: 0 });
      this.list.draw();
    }
  }

  protected rest(): void {
    this.watching?.dispose();
    this.watching = null;
    clearInterval(this.ages);
    this.cwm.windows.show(null);
  }

  private makeDeleted(): HTMLElement {
    const { windows, trans } = this.cwm;
    const label = document.createElement('label');
    const box = document.createElement('input');
    box.type = 'checkbox';
    box.onchange = () => windows.change({ deleted: box.checked });
    label.append(box, trans.__('Show deleted'));
    return label;
  }

  private heard(_: unknown, { running }: Statistics): void {
    if (running !== this.running) {
      this.running = running;
      this.tell();
    }
  }

  private learned(): void {
    const { server } = this.version;
    if (server !== null) {
      this.running = server.stack !== null;
    }
    this.tell();
  }

  /** Show what the list cannot say itself. */
  private tell(): void {
    const { windows, events, trans } = this.cwm;
    const error = windows.error ?? events.error;
    const instead = this.insteadOfList(error);
    const key = instead?.map(node => node.outerHTML).join('') ?? '';
    this.list.setHidden(instead !== null);
    this.header.setHidden(this.version.problem !== null);
    this.instead.setHidden(instead === null);
    if (instead !== null && key !== this.shown) {
      this.instead.node.replaceChildren(...instead);
    }
    this.shown = key;
    this.tellNotes(instead === null && error !== null ? told(error) : null);
    const total = windows.total;
    const count = total === null ? '' : trans._n('%1 window', '%1 windows', total);
    if (this.count.textContent !== count) {
      this.count.textContent = count;
    }
    this.status.setHidden(total === null || this.version.problem !== null);
  }

  private tellNotes(problem: string | null): void {
    const { trans } = this.cwm;
    const notes: HTMLElement[] = [];
    if (problem !== null) {
      notes.push(said('div', 'cwm-Note cwm-mod-error', problem, 'alert'));
    }
    if (this.version.elsewhere !== null) {
      notes.push(said('div', 'cwm-Note cwm-mod-warn', this.version.elsewhere));
    }
    if (this.running === false && this.version.problem === null && problem === null) {
      const down = said('div', 'cwm-Note', trans.__('No stack is running.'));
      down.append(' ', element('code', '', '%cwm up'), ' ', trans.__('starts one.'));
      notes.push(down);
    }
    const key = notes.map(one => one.outerHTML).join('');
    if (key !== this.noted) {
      this.noted = key;
      this.notes.node.replaceChildren(...notes);
    }
    this.notes.setHidden(notes.length === 0);
  }

  /** What to show where there is no list; null: there is one. */
  private insteadOfList(error: unknown): HTMLElement[] | null {
    const { windows, trans } = this.cwm;
    if (this.version.problem !== null) {
      const again = button(trans.__('Look again'), () => void this.again());
      return [
        said('div', 'cwm-Instead-title', trans.__('Not available')),
        said('div', '', this.version.problem),
        again
      ];
    }
    if (windows.total === null) {
      if (error === null) {
        return [said('div', 'cwm-Instead-faint', trans.__('Loading…'))];
      }
      const again = button(trans.__('Try again'), () => void this.again());
      return [
        said('div', 'cwm-Instead-title', trans.__('The windows cannot be listed')),
        said('div', '', told(error), 'alert'),
        again
      ];
    }
    if (windows.total > 0) {
      return null;
    }
    if (!windows.unfiltered) {
      const clear = button(trans.__('Clear the search'), () => this.header.clear());
      return [said('div', 'cwm-Instead-title', trans.__('No window matches')), clear];
    }
    return this.beginning();
  }

  private beginning(): HTMLElement[] {
    const { trans } = this.cwm;
    const steps = document.createElement('ol');
    const load = '%load_ext cwm_jupyter';
    for (const [line, what] of [
      [load, trans.__('brings the magics')],
      ['%cwm up', trans.__('starts the stack')],
      ['%%cwm', trans.__('say what stands below it')],
      ['%freeze paper', trans.__('keep the conversation’s state')],
      ['%thaw paper', trans.__('go on from there another day')]
    ]) {
      const step = document.createElement('li');
      step.append(element('code', '', line), said('div', '', what));
      steps.append(step);
    }
    return [
      said('div', 'cwm-Instead-title', trans.__('No windows yet')),
      said(
        'div',
        '',
        trans.__('A window keeps the state of a conversation with a model. In a notebook:')
      ),
      steps
    ];
  }

  private async again(): Promise<void> {
    this.cwm.events.retry();
    await this.version.check();
    this.cwm.windows.refresh();
  }

  private readonly header: Header;
  private readonly list: WindowList;
  private readonly notes = new Widget();
  private readonly instead = new Widget();
  private readonly status = new Widget();
  private readonly count = document.createElement('span');
  private watching: IDisposable | null = null;
  private ages: ReturnType<typeof setInterval> | undefined;
  private running: boolean | null = null;
  private shown = '';
  private noted = '';
}
