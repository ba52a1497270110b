import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { CWMError } from '../errors';
import { Events, parse } from '../events';

class Page extends EventTarget {
  visibilityState: DocumentVisibilityState = 'visible';
  set(state: DocumentVisibilityState): void {
    this.visibilityState = state;
    this.dispatchEvent(new Event('visibilitychange'));
  }
}

/** A channel's other end. */
class Server {
  readonly page = new Page();
  streams: { send: (text: string) => void; end: () => void; signal: AbortSignal }[] = [];
  /** What opening a channel, and asking for the version, fail with. */
  refuses: Error | null = null;
  down: Error | null = null;
  generation = 'g1';
  readonly get = vi.fn(async (path: string): Promise<unknown> => {
    if (this.down) {
      throw this.down;
    }
    return { version: { generation: this.generation }, jobs: { items: [] } }[path] ?? {};
  });
  readonly stream = vi.fn(async (_path: string, signal: AbortSignal) => {
    if (this.refuses) {
      throw this.refuses;
    }
    const pipe = new TransformStream<Uint8Array, Uint8Array>();
    const writer = pipe.writable.getWriter();
    const encoder = new TextEncoder();
    const end = (): void => void writer.close().catch(() => undefined);
    signal.addEventListener('abort', () => void writer.abort().catch(() => undefined));
    this.streams.push({
      send: text => void writer.write(encoder.encode(text)).catch(() => undefined),
      end,
      signal
    });
    return { body: pipe.readable } as unknown as Response;
  });
  readonly events = new Events({
    client: { get: this.get, stream: this.stream } as never,
    page: this.page as never,
    pollMs: () => 5_000
  });
  heard: string[] = [];

  constructor() {
    this.events.index.connect((_, generation) => void this.heard.push(generation));
  }
}

let server: Server;

beforeEach(() => {
  vi.useFakeTimers();
  server = new Server();
});

afterEach(async () => {
  server.events.dispose();
  await vi.advanceTimersByTimeAsync(50); // Lumino forgets signals a moment later
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const index = (generation: string): string =>
  `event: index\ndata: {"generation": "${generation}"}\n\n`;

/** Let everything that is due happen, within so many milliseconds. */
async function pass(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  for (let i = 0; i < 20; i++) {
    await Promise.resolve();
    await new Promise<void>(resolve => process.nextTick(resolve));
  }
}

declare const process: { nextTick(done: () => void): void };

test('nothing is open while nobody watches', async () => {
  await pass(60_000);
  expect(server.stream).not.toHaveBeenCalled();
  expect(server.get).not.toHaveBeenCalled();
});

test('one channel serves all, and closes when the last one has gone', async () => {
  const [a, b] = [server.events.watch(), server.events.watch()];
  await pass();
  expect(server.stream).toHaveBeenCalledTimes(1);
  a.dispose();
  a.dispose();
  await pass(10_000);
  expect(server.events.running).toBe(true);
  b.dispose();
  await pass(3_000);
  expect(server.events.running).toBe(false);
  expect(server.streams[0].signal.aborted).toBe(true);
});

test('events are passed on, in whatever pieces they come', async () => {
  const opened = vi.fn();
  server.events.opened.connect(opened);
  server.events.watch();
  await pass();
  const text = `retry: 3000\n\n${index('g1')}: still here\n\n${index('g2')}`;
  for (const piece of [text.slice(0, 25), text.slice(25, 60), text.slice(60)]) {
    server.streams[0].send(piece);
    await pass();
  }
  expect(server.heard).toEqual(['g1', 'g2']);
  expect(opened).toHaveBeenCalledTimes(1);
  expect(server.events.connected).toBe(true);
});

test('a hidden page has no channel, and gets it back when it is seen', async () => {
  server.events.watch();
  await pass();
  server.page.set('hidden');
  await pass(3_000);
  expect(server.events.running).toBe(false);
  server.page.set('visible');
  await pass();
  expect(server.stream).toHaveBeenCalledTimes(2);
});

test('a glance elsewhere closes nothing', async () => {
  server.events.watch();
  await pass();
  server.page.set('hidden');
  await pass(500);
  server.page.set('visible');
  await pass(5_000);
  expect(server.stream).toHaveBeenCalledTimes(1);
});

test('a channel that ends is opened again, and polled for meanwhile', async () => {
  server.events.watch();
  await pass();
  server.streams[0].send(index('g1'));
  await pass();
  server.generation = 'g2';
  server.streams[0].end();
  await pass();
  expect(server.heard).toEqual(['g1', 'g2']);
  await pass(5_000);
  expect(server.stream).toHaveBeenCalledTimes(2);
});

test('a channel that is silent is given up', async () => {
  server.events.watch();
  await pass();
  server.streams[0].send(index('g1'));
  await pass(45_000);
  expect(server.streams[0].signal.aborted).toBe(true);
  expect(server.stream.mock.calls.length).toBeGreaterThan(1);
});

test('where there is no channel it is polled, as often as is set', async () => {
  server.refuses = new CWMError('Too many clients.', 503, 'http.service_unavailable');
  server.events.watch();
  await pass(1);
  expect(server.heard).toEqual(['g1']);
  expect(server.events.connected).toBe(true);
  await pass(10_000);
  const before = server.get.mock.calls.filter(([path]) => path === 'version').length;
  await pass(50_000);
  const after = server.get.mock.calls.filter(([path]) => path === 'version').length;
  expect(after - before).toBeGreaterThanOrEqual(9);
  expect(after - before).toBeLessThanOrEqual(11);
});

test('errors are told, and asked about ever more rarely', async () => {
  server.refuses = server.down = new CWMError('It does not answer.', 0, 'server.unreachable');
  const changed = vi.fn();
  server.events.stateChanged.connect(changed);
  server.events.watch();
  await pass(1);
  expect(server.events.connected).toBe(false);
  await pass(600_000);
  expect(server.get.mock.calls.length).toBeLessThan(20);
  expect(changed).toHaveBeenCalledTimes(1);
  server.refuses = server.down = null;
  server.events.retry();
  await pass();
  server.streams[0].send(index('g3'));
  await pass();
  expect(server.events.connected).toBe(true);
  expect(server.heard).toEqual(['g3']);
});

test('comments and what is not known are no events', () => {
  expect(parse(': still here')).toEqual({ kind: null, data: null });
  expect(parse('event: index\ndata: {"generation": "x"}')).toEqual({
    kind: 'index',
    data: { generation: 'x' }
  });
});
