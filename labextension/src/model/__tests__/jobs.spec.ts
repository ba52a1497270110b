import { nullTranslator } from '@jupyterlab/translation';
import { DisposableDelegate } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { CWMError } from '../../api/errors';
import type { JobView } from '../../api/types';
import { Jobs } from '../jobs';

const trans = nullTranslator.load('');

function job(change: Record<string, unknown> = {}): JobView {
  return {
    id: 'j1',
    what: 'freeze paper',
    state: 'running',
    cancelling: false,
    stage: 'store',
    unit: 'chunks',
    done: 1,
    total: 4,
    elapsed_s: 1,
    stages_s: {},
    started_at: '2026-01-02T03:04:05Z',
    ended_at: null,
    result: null,
    error: null,
    ...change
  } as JobView;
}

class Server {
  view: JobView = job();
  missing = false;
  watchers = 0;
  readonly job = new Signal<object, JobView>(this);
  readonly opened = new Signal<object, void>(this);
  readonly watch = (): DisposableDelegate => {
    this.watchers += 1;
    return new DisposableDelegate(() => (this.watchers -= 1));
  };
  readonly get = vi.fn(async () => {
    if (this.missing) {
      throw new CWMError('There is no such job.', 404, 'http.not_found');
    }
    return this.view;
  });
  readonly delete = vi.fn(async () => this.view);
  readonly notices = { emit: vi.fn(() => 'n1'), update: vi.fn(() => true), dismiss: vi.fn() };
  readonly jobs = new Jobs(this as never, this as never, this.notices as never, trans);
}

let server: Server;

beforeEach(() => {
  vi.useFakeTimers();
  server = new Server();
});

afterEach(async () => {
  expect(server.watchers).toBe(0);
  await vi.advanceTimersByTimeAsync(50); // Lumino forgets signals a moment later
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

test('a short job is told once, when it has ended', async () => {
  const result = server.jobs.follow<{ name: string }>(job(), {
    done: ({ name }) => `Kept ${name}.`
  });
  await vi.advanceTimersByTimeAsync(100);
  server.job.emit(job({ id: 'another', state: 'done', result: {} }));
  server.job.emit(job({ state: 'done', result: { name: 'paper' } }));
  expect(await result).toEqual({ name: 'paper' });
  expect(server.notices.emit).toHaveBeenCalledTimes(1);
  expect(server.notices.emit.mock.calls[0]).toMatchObject(['Kept paper.', 'success', {}]);
});

test('a long one shows how far it is, and can be stopped', async () => {
  const result = server.jobs.follow(job()).catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(1_000);
  const [message, type, options] = server.notices.emit.mock.calls[0] as unknown as [
    string,
    string,
    { progress: number; actions: { callback: (event: Event) => void }[] }
  ];
  expect([message, type, options.progress]).toEqual([
    'freeze paper: store 1 / 4 chunks',
    'in-progress',
    0.25
  ]);
  server.job.emit(job({ done: 3 }));
  expect(server.notices.update).toHaveBeenLastCalledWith(
    expect.objectContaining({ id: 'n1', progress: 0.75 })
  );
  const click = new Event('click', { cancelable: true });
  options.actions[0].callback(click);
  expect(click.defaultPrevented).toBe(true);
  expect(server.delete).toHaveBeenCalledWith('jobs/j1');
  const error = { code: 'job.cancelled', message: 'Cancelled.', hint: null, context: {} };
  server.job.emit(job({ state: 'cancelled', error }));
  expect(await result).toMatchObject({ code: 'job.cancelled' });
  expect(server.notices.update).toHaveBeenLastCalledWith(
    expect.objectContaining({ type: 'info', message: 'Cancelled.' })
  );
});

test('a failure is told and thrown', async () => {
  const error = { code: 'stack.down', message: 'No stack.', hint: 'Start it.', context: {} };
  server.view = job({ state: 'failed', error });
  await expect(server.jobs.follow(job())).rejects.toMatchObject({ code: 'stack.down' });
  expect(server.notices.emit).toHaveBeenCalledWith('No stack. Start it.', 'error', {
    autoClose: false,
    actions: []
  });
});

test('an end that came while the channel was closed is not missed', async () => {
  const result = server.jobs.follow(job());
  await vi.advanceTimersByTimeAsync(100);
  server.view = job({ state: 'done', result: { ok: 1 } });
  server.opened.emit();
  expect(await result).toEqual({ ok: 1 });
});

test('a server that was started anew knows no job', async () => {
  server.missing = true;
  await expect(server.jobs.follow(job())).rejects.toMatchObject({ status: 404 });
});
