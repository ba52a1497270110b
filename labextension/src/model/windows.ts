/**
 * The list of windows as one looks at it: of thousands only the pages in sight are fetched, and
 * they are fetched again when the index has changed.
 */
import type { IDisposable } from '@lumino/disposable';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { Client, Query } from '../api/client';
import type { Events } from '../api/events';
import type { Window, WindowListing } from '../api/types';

export const PAGE = 100;
/** Pages that are kept; the others are fetched again when one gets back to them. */
const MAX_PAGES = 30;
const TYPING_MS = 250;

export type Sort = 'name' | 'created' | 'used' | 'tokens' | 'bytes';

export interface Filter {
  text: string;
  tags: readonly string[];
  sort: Sort;
  descending: boolean;
  /** Deleted ones too, which can be brought back. */
  deleted: boolean;
}

const NEWEST_FIRST: Filter = {
  text: '',
  tags: [],
  sort: 'created',
  descending: true,
  deleted: false
};

interface Page {
  items: Window[];
  etag: string | null;
  stale: boolean;
}

/** The windows of one filter, as far as they are known. */
class Listed {
  constructor(readonly filter: Filter) {}
  readonly pages = new Map<number, Page>();
  readonly loading = new Set<number>();
  total: number | null = null;

  get query(): Query {
    const { text, tags, sort, descending, deleted } = this.filter;
    return {
      text: text || undefined,
      tags: [...tags],
      sort: descending ? `-${sort}` : sort,
      state: deleted ? ['intact', 'damaged', 'deleted'] : undefined,
      limit: PAGE
    };
  }
}

/** Sparse pages of windows, filtered and sorted by the server. */
export class WindowsModel implements IDisposable {
  constructor(
    private readonly client: Pick<Client, 'getIfChanged'>,
    private readonly events: Pick<Events, 'index'>
  ) {
    this.events.index.connect(this.refresh, this);
  }

  /** Something of the list is another one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }
  /** The list is of another filter. */
  get filtered(): ISignal<this, void> {
    return this._filtered;
  }
  /** The window that the user has chosen is another one. */
  get currentChanged(): ISignal<this, void> {
    return this._currentChanged;
  }
  /** What is listed, or about to be. */
  get filter(): Filter {
    return (this._next ?? this._listed).filter;
  }
  /** How many windows there are; null: not known yet. */
  get total(): number | null {
    return this._listed.total;
  }
  /** Whether nothing is left out. */
  get unfiltered(): boolean {
    return this._listed.filter.text === '' && this._listed.filter.tags.length === 0;
  }
  /** Why the latest page could not be fetched; null: it could. */
  get error(): unknown {
    return this._error;
  }
  /** The tags that were seen, for one to choose from. */
  get tags(): string[] {
    return [...this._tags].sort((a, b) => a.localeCompare(b));
  }
  /** The window that commands are about where none is named. */
  get current(): Window | null {
    return this._current;
  }
  set current(window: Window | null) {
    const before = this._current;
    this._current = window;
    if (window !== before) {
      this._currentChanged.emit();
    }
  }
  get isDisposed(): boolean {
    return this._disposed;
  }

  /** The window at a place of the list; null: not fetched. */
  at(place: number): Window | null {
    return this._listed.pages.get(Math.floor(place / PAGE))?.items[place % PAGE] ?? null;
  }

  /** The place of a window, among those that were fetched; -1: it is not there. */
  placeOf(id: string): number {
    for (const [number, page] of this._listed.pages) {
      const place = page.items.findIndex(window => window.id === id);
      if (place >= 0) {
        return number * PAGE + place;
      }
    }
    return -1;
  }

  /** Say which places are in sight; null: none is, and nothing is fetched. */
  show(range: { first: number; last: number } | null): void {
    this._sight = range;
    this.fetch();
  }

  /** Filter or sort otherwise; a search text waits until no more is typed. */
  change(change: Partial<Filter>): void {
    const filter = { ...this.filter, ...change };
    if (JSON.stringify(filter) === JSON.stringify(this.filter)) {
      return;
    }
    // The old list stays in sight until the first page of the new one is there.
    this._next = new Listed(filter);
    clearTimeout(this._typing);
    if ('text' in change) {
      this._typing = setTimeout(() => this.fetch(), TYPING_MS);
    } else {
      this.fetch();
    }
  }

  /** Ask again for what is in sight; what has not changed costs the server next to nothing. */
  refresh(): void {
    for (const page of this._listed.pages.values()) {
      page.stale = true;
    }
    this._revision += 1;
    this.fetch();
  }

  dispose(): void {
    this._disposed = true;
    clearTimeout(this._typing);
    Signal.clearData(this);
  }

  private fetch(): void {
    if (this._disposed || this._sight === null) {
      return;
    }
    if (this._next !== null) {
      void this.load(this._next, 0);
      return;
    }
    const { first, last } = this._sight;
    const least = Math.floor(Math.max(first, 0) / PAGE);
    const end = this._listed.total ?? 1;
    for (let number = least; number * PAGE < Math.max(end, 1) && number * PAGE <= last; number++) {
      void this.load(this._listed, number);
    }
  }

  private async load(listed: Listed, number: number): Promise<void> {
    const known = listed.pages.get(number);
    if (listed.loading.has(number) || (known && !known.stale)) {
      return;
    }
    listed.loading.add(number);
    const revision = this._revision;
    try {
      const query = { ...listed.query, offset: number * PAGE };
      const answer = await this.client.getIfChanged<WindowListing>(
        'windows',
        query,
        known?.etag ?? null
      );
      if (this._disposed || (listed !== this._listed && listed !== this._next)) {
        return;
      }
      if (answer === null) {
        known!.stale = revision !== this._revision;
      } else {
        this.take(listed, number, answer.value, answer.etag);
        listed.pages.get(number)!.stale = revision !== this._revision;
      }
      this._error = null;
    } catch (error) {
      this._error = error;
    } finally {
      listed.loading.delete(number);
    }
    if (this._disposed) {
      return;
    }
    if (listed === this._next && this._error === null) {
      this._listed = listed;
      this._next = null;
      this._filtered.emit();
    }
    this._changed.emit();
    if (this._error === null) {
      this.fetch(); // it may have changed while it was being fetched
    }
  }

  private take(listed: Listed, number: number, listing: WindowListing, etag: string | null): void {
    if (listed.total !== null && listed.total !== listing.total) {
      // What comes after has moved.
      for (const page of listed.pages.values()) {
        page.stale = true;
      }
    }
    listed.total = listing.total;
    listed.pages.set(number, { items: listing.items, etag, stale: false });
    for (const window of listing.items) {
      window.tags.forEach(tag => this._tags.add(tag));
      if (window.id === this._current?.id) {
        this.current = window;
      }
    }
    for (const far of [...listed.pages.keys()]) {
      if (far * PAGE >= listing.total && far > 0) {
        listed.pages.delete(far);
      }
    }
    const inSight = Math.floor((this._sight?.first ?? 0) / PAGE);
    const farthest = [...listed.pages.keys()].sort(
      (a, b) => Math.abs(b - inSight) - Math.abs(a - inSight)
    );
    farthest.slice(0, Math.max(listed.pages.size - MAX_PAGES, 0)).forEach(far => {
      listed.pages.delete(far);
    });
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _filtered = new Signal<this, void>(this);
  private readonly _currentChanged = new Signal<this, void>(this);
  private readonly _tags = new Set<string>();
  private _listed = new Listed(NEWEST_FIRST);
  private _next: Listed | null = null;
  private _sight: { first: number; last: number } | null = null;
  private _current: Window | null = null;
  private _error: unknown = null;
  private _revision = 0;
  private _typing: ReturnType<typeof setTimeout> | undefined;
  private _disposed = false;
}
