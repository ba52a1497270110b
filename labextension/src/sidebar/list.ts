/** The list itself: of thousands of rows only those in sight exist. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';

import type { Window } from '../api/types';
import type { WindowsModel } from '../model/windows';
import { dragOnMove } from './drag';
import { fill, makeRow, ROW_PX } from './row';

/** Rows that are ready above and below those in sight. */
const AHEAD = 8;

/** A listbox over the model's sparse pages. */
export class WindowList extends Widget {
  constructor(
    private readonly model: WindowsModel,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('cwm-List');
    this.node.tabIndex = 0;
    this.node.setAttribute('role', 'listbox');
    this.node.setAttribute('aria-label', trans.__('Context windows'));
    this.canvas.className = 'cwm-List-canvas';
    this.canvas.setAttribute('role', 'presentation');
    this.node.append(this.canvas);
    model.changed.connect(this.changed, this);
    model.filtered.connect(this.filtered, this);
    model.currentChanged.connect(this.changed, this);
  }

  /** A row was opened, by Enter or two clicks. */
  get opened(): ISignal<this, Window> {
    return this._opened;
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.sized?.disconnect();
      cancelAnimationFrame(this.frame);
      this.model.changed.disconnect(this.changed, this);
      this.model.filtered.disconnect(this.filtered, this);
      this.model.currentChanged.disconnect(this.changed, this);
      Signal.clearData(this);
      super.dispose();
    }
  }

  handleEvent(event: Event): void {
    switch (event.type) {
      case 'scroll':
        this.draw();
        break;
      case 'keydown':
        this.pressed(event as KeyboardEvent);
        break;
      case 'mousedown':
        this.clicked(event as MouseEvent);
        break;
      case 'dblclick':
        this.open();
        break;
      case 'contextmenu':
        this.aimMenu(event as MouseEvent);
        break;
    }
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    for (const kind of KINDS) {
      this.node.addEventListener(kind, this, { passive: kind === 'scroll' });
    }
    this.sized = new ResizeObserver(() => this.draw());
    this.sized.observe(this.node);
  }

  protected onBeforeDetach(message: Message): void {
    for (const kind of KINDS) {
      this.node.removeEventListener(kind, this);
    }
    this.sized?.disconnect();
    super.onBeforeDetach(message);
  }

  /** Draw what is in sight with the next picture, and fetch what is missing of it. */
  draw(): void {
    if (this.frame === 0 && !this.isDisposed) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.drawNow();
      });
    }
  }

  /** Draw all rows anew: their ages have changed. */
  redraw(): void {
    for (const row of this.rows.values()) {
      row.window = undefined;
    }
    this.draw();
  }

  private drawNow(): void {
    const total = this.model.total ?? 0;
    this.canvas.style.height = `${total * ROW_PX}px`;
    const first = Math.max(Math.floor(this.node.scrollTop / ROW_PX) - AHEAD, 0);
    const seen = Math.ceil(this.node.clientHeight / ROW_PX);
    const last = Math.min(first + seen + 2 * AHEAD, total) - 1;
    for (const [place, row] of this.rows) {
      if (place < first || place > last) {
        row.node.remove();
        this.rows.delete(place);
      }
    }
    for (let place = first; place <= last; place++) {
      this.drawRow(place, total);
    }
    const chosen = this.place();
    const there = chosen >= 0 && this.rows.has(chosen);
    if (there) {
      this.node.setAttribute('aria-activedescendant', rowId(chosen));
    } else {
      this.node.removeAttribute('aria-activedescendant');
    }
    if (this.isVisible) {
      this.model.show({ first, last: Math.max(last, 0) });
    }
  }

  private drawRow(place: number, total: number): void {
    const window = this.model.at(place);
    let row = this.rows.get(place);
    if (row === undefined) {
      row = { node: makeRow(), window: undefined };
      row.node.id = rowId(place);
      row.node.style.top = `${place * ROW_PX}px`;
      row.node.dataset['place'] = String(place);
      this.canvas.append(row.node);
      this.rows.set(place, row);
    }
    if (row.window !== window) {
      row.window = window;
      fill(row.node, window, this.trans);
    }
    row.node.setAttribute('aria-setsize', String(total));
    row.node.setAttribute('aria-posinset', String(place + 1));
    const selected = window !== null && window.id === this.model.current?.id;
    row.node.setAttribute('aria-selected', String(selected));
  }

  private changed(): void {
    this.keepChoice();
    this.draw();
  }

  private filtered(): void {
    this.wanted = -1;
    this.node.scrollTop = 0;
    for (const { node } of this.rows.values()) {
      node.remove();
    }
    this.rows.clear();
  }

  /** Where the chosen window has gone, what stands in its place is chosen. */
  private keepChoice(): void {
    const wanted = this.wanted < 0 ? null : this.model.at(this.wanted);
    if (wanted !== null) {
      this.wanted = -1; // it is fetched now
      this.model.current = wanted;
    }
    const { current, total } = this.model;
    if (current === null || total === null) {
      return;
    }
    const place = this.model.placeOf(current.id);
    if (place >= 0) {
      this.chosen = this.wanted < 0 ? place : this.chosen;
      this.chosenId = current.id;
    } else if (this.chosenId !== current.id) {
      return; // a new one, which is not fetched yet
    } else if (total === 0) {
      this.model.current = null;
    } else {
      const instead = this.model.at(Math.min(this.chosen, total - 1));
      if (instead !== null && instead.id !== current.id) {
        this.model.current = instead;
      }
    }
  }

  private place(): number {
    const current = this.model.current;
    return current === null ? -1 : this.model.placeOf(current.id);
  }

  private choose(place: number): void {
    const total = this.model.total ?? 0;
    if (total === 0) {
      return;
    }
    this.chosen = Math.min(Math.max(place, 0), total - 1);
    const top = this.chosen * ROW_PX;
    const { scrollTop, clientHeight } = this.node;
    if (top < scrollTop) {
      this.node.scrollTop = top;
    } else if (top + ROW_PX > scrollTop + clientHeight) {
      this.node.scrollTop = top + ROW_PX - clientHeight;
    }
    this.wanted = this.chosen;
    this.keepChoice();
    this.draw();
  }

  private pressed(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const page = Math.max(Math.floor(this.node.clientHeight / ROW_PX) - 1, 1);
    const at = this.wanted >= 0 || this.place() < 0 ? this.chosen : this.place();
    const to: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: (this.model.total ?? 1) - 1
    };
    if (event.key in to && !event.shiftKey) {
      this.choose(to[event.key]);
    } else if (event.key === 'Enter') {
      this.open();
    } else if (event.key === 'ContextMenu' || (event.key === 'F10' && event.shiftKey)) {
      this.openMenu();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private clicked(event: MouseEvent): void {
    const place = placeUnder(event);
    const window = place === null ? null : this.model.at(place);
    if (place === null || window === null) {
      return;
    }
    this.choose(place);
    if (event.button === 0 && window.state !== 'deleted') {
      dragOnMove(event, window, this.rows.get(place)!.node, this);
    }
  }

  private open(): void {
    const window = this.model.current;
    if (window !== null) {
      this._opened.emit(window);
    }
  }

  /** Lab's menu comes up where the event says, and for what is chosen. */
  private openMenu(): void {
    const row = this.rows.get(this.place())?.node;
    if (row) {
      const { left, bottom } = row.getBoundingClientRect();
      row.dispatchEvent(
        new MouseEvent('contextmenu', {
          bubbles: true,
          cancelable: true,
          clientX: left + 16,
          clientY: bottom - 4
        })
      );
    }
  }

  private aimMenu(event: MouseEvent): void {
    const place = placeUnder(event);
    if (place === null) {
      // The browser's own, after the key that we have answered already.
      event.preventDefault();
      event.stopPropagation();
    } else {
      this.choose(place);
    }
  }

  private readonly canvas = document.createElement('div');
  private readonly rows = new Map<
    number,
    { node: HTMLElement; window: Window | null | undefined }
  >();
  private readonly _opened = new Signal<this, Window>(this);
  private sized: ResizeObserver | null = null;
  private frame = 0;
  private chosen = -1;
  /** A place that was gone to and is not fetched yet; -1: none. */
  private wanted = -1;
  private chosenId: string | null = null;
}

const KINDS = ['scroll', 'keydown', 'mousedown', 'dblclick', 'contextmenu'] as const;

function rowId(place: number): string {
  return `cwm-item-${place}`;
}

function placeUnder(event: Event): number | null {
  const row = (event.target as Element).closest<HTMLElement>('.cwm-Item');
  return row === null ? null : Number(row.dataset['place']);
}
