/**
 * What changes on the server: one channel for all parts of the extension, and polling where there
 * is none. Nothing is open or asked while nobody watches or the page is hidden.
 */
import type { IDisposable } from '@lumino/disposable';
import { DisposableDelegate } from '@lumino/disposable';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { Client } from './client';
import type { JobListing, JobView, Statistics, VersionView } from './types';

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;
/** The server sends a sign of life each 15 s: a channel that is silent for longer is dead. */
const SILENCE_MS = 40_000;
/** Who only flips past a tab does not close and open the channel. */
const LINGER_MS = 2_000;

export interface Channel {
  client: Pick<Client, 'get' | 'stream'>;
  /** Milliseconds between two looks where there is no channel. */
  pollMs: () => number;
  page: Pick<Document, 'visibilityState' | 'addEventListener' | 'removeEventListener'>;
}

/** Signals of changes; `watch` while somebody looks. */
export class Events implements IDisposable {
  constructor(private readonly channel: Channel) {
    channel.page.addEventListener('visibilitychange', this.look);
  }

  /** The index has another generation. */
  get index(): ISignal<this, string> {
    return this._index;
  }
  /** The caches' figures. */
  get statistics(): ISignal<this, Statistics> {
    return this._statistics;
  }
  /** A job has changed. */
  get job(): ISignal<this, JobView> {
    return this._job;
  }
  /** Changes come again: what was told meanwhile was missed. */
  get opened(): ISignal<this, void> {
    return this._opened;
  }
  /** `connected` or `error` is another one. */
  get stateChanged(): ISignal<this, void> {
    return this._stateChanged;
  }
  /** Whether changes come at once, or by polling at least. */
  get connected(): boolean {
    return this._error === null;
  }
  /** Why they do not. */
  get error(): unknown {
    return this._error;
  }
  get isDisposed(): boolean {
    return this._disposed;
  }
  /** Whether the channel is open, or polled. */
  get running(): boolean {
    return this._running !== null;
  }

  /** Begin to watch; dispose of what is returned to end it. */
  watch(): IDisposable {
    this._watchers += 1;
    this.look();
    return new DisposableDelegate(() => {
      this._watchers -= 1;
      this.look();
    });
  }

  /** Try again at once, as after the user has done something about an error. */
  retry(): void {
    this.stop();
    this.look();
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    this.channel.page.removeEventListener('visibilitychange', this.look);
    this.stop();
    Signal.clearData(this);
  }

  private readonly look = (): void => {
    clearTimeout(this._linger);
    const wanted =
      this._watchers > 0 && this.channel.page.visibilityState !== 'hidden' && !this._disposed;
    if (wanted && this._running === null) {
      this._running = new AbortController();
      void this.run(this._running.signal);
    } else if (!wanted && this._running !== null) {
      if (this._disposed) {
        this.stop();
      } else {
        this._linger = setTimeout(() => this.stop(), LINGER_MS);
      }
    }
  };

  private stop(): void {
    clearTimeout(this._linger);
    this._running?.abort();
    this._running = null;
  }

  private async run(signal: AbortSignal): Promise<void> {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
      try {
        await this.listen(signal, () => (wait = FIRST_WAIT_MS));
      } catch {
        // Perhaps a proxy does not let it pass, or the server is gone: the next look tells.
      }
      if (signal.aborted) {
        return;
      }
      try {
        await this.poll();
        wait = Math.min(wait * 2, this.channel.pollMs());
      } catch (error) {
        this.settle(error);
        wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      }
      await pause(wait, signal);
    }
  }

  /** Pass on what the channel sends, until it ends or is silent for too long. */
  private async listen(signal: AbortSignal, opened: () => void): Promise<void> {
    const own = new AbortController();
    const end = (): void => own.abort();
    signal.addEventListener('abort', end);
    let silence = setTimeout(end, SILENCE_MS);
    try {
      const response = await this.channel.client.stream('events', own.signal);
      let begun = false;
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done || signal.aborted) {
          return;
        }
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE_MS);
        opened();
        this.settle(null);
        if (!begun) {
          begun = true;
          this._opened.emit();
        }
        const events = (text + value).split('\n\n');
        text = events.pop()!;
        events.forEach(event => this.pass(event));
      }
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', end);
      own.abort();
    }
  }

  private pass(event: string): void {
    const { kind, data } = parse(event);
    if (kind === 'index') {
      this.changed((data as { generation: string }).generation);
    } else if (kind === 'statistics') {
      this._statistics.emit(data as Statistics);
    } else if (kind === 'job') {
      this._job.emit(data as JobView);
    }
  }

  /** Ask for what the channel would have sent. */
  private async poll(): Promise<void> {
    const { client } = this.channel;
    const version = await client.get<VersionView>('version');
    this.settle(null);
    this.changed(version.generation);
    const [jobs, statistics] = await Promise.all([
      client.get<JobListing>('jobs'),
      client.get<Statistics>('statistics')
    ]);
    jobs.items.forEach(job => this._job.emit(job));
    this._statistics.emit(statistics);
  }

  private changed(generation: string): void {
    if (generation !== this._generation) {
      this._generation = generation;
      this._index.emit(generation);
    }
  }

  private settle(error: unknown): void {
    if (error !== this._error) {
      this._error = error;
      this._stateChanged.emit();
    }
  }

  private readonly _index = new Signal<this, string>(this);
  private readonly _statistics = new Signal<this, Statistics>(this);
  private readonly _job = new Signal<this, JobView>(this);
  private readonly _opened = new Signal<this, void>(this);
  private readonly _stateChanged = new Signal<this, void>(this);
  private _generation: string | null = null;
  private _error: unknown = null;
  private _watchers = 0;
  private _running: AbortController | null = null;
  private _linger: ReturnType<typeof setTimeout> | undefined;
  private _disposed = false;
}

/** One event as Server-Sent Events has it; comments have no kind. */
export function parse(event: string): { kind: string | null; data: unknown } {
  let kind: string | null = null;
  let data: unknown = null;
  for (const line of event.split('\n')) {
    if (line.startsWith('event: ')) {
      kind = line.slice(7);
    } else if (line.startsWith('data: ')) {
      data = JSON.parse(line.slice(6));
    }
  }
  return { kind, data };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
