import { Signal } from '@lumino/signaling';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type { Query } from '../../api/client';
import { CWMError } from '../../api/errors';
import type { Window } from '../../api/types';
import { PAGE, WindowsModel } from '../windows';

/** An index of so many windows, which answers as the server does. */
class Index {
  generation = 'g1';
  size = 1_000;
  fails: Error | null = null;
  asked: { offset: number; text?: string; sort: string; etag: string | null }[] = [];
  readonly told = new Signal<object, string>(this);
  readonly index = this.told as never;

  getIfChanged = async (_: string, query: Query, etag: string | null): Promise<never> => {
    const offset = query['offset'] as number;
    const text = query['text'] as string | undefined;
    this.asked.push({ offset, text, sort: query['sort'] as string, etag });
    const { generation, size } = this;
    await new Promise(resolve => setTimeout(resolve, 20));
    if (this.fails) {
      throw this.fails;
    }
    if (etag === generation) {
      return null as never;
    }
    const all = Array.from({ length: size }, (_, i) => `w${i}`).filter(id =>
      id.includes(text ?? '')
    );
    const items = all
      .slice(offset, offset + PAGE)
      .map(id => ({ id, name: id, tags: [`t${id.at(-1)}`] }));
    return { value: { items, total: all.length, offset, generation }, etag: generation } as never;
  };

  change(generation: string, size = this.size): void {
    this.generation = generation;
    this.size = size;
    this.told.emit(generation);
  }

  get offsets(): number[] {
    const offsets = this.asked.map(one => one.offset);
    this.asked = [];
    return offsets;
  }
}

let index: Index;
let model: WindowsModel;

beforeEach(() => {
  vi.useFakeTimers();
  index = new Index();
  model = new WindowsModel(index as never, index as never);
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

const pass = (ms = 100): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

test('nothing is fetched while nothing is in sight', async () => {
  index.change('g2');
  await pass();
  expect(index.asked).toEqual([]);
  expect(model.total).toBeNull();
});

test('only pages in sight are fetched, each once', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  expect(model.total).toBe(1_000);
  expect(model.at(5)?.id).toBe('w5');
  expect(model.at(150)).toBeNull();
  model.show({ first: 395, last: 405 });
  await pass();
  model.show({ first: 390, last: 400 });
  await pass();
  expect(index.offsets).toEqual([0, 300, 400]);
  expect(model.at(399)?.id).toBe('w399');
  expect(model.placeOf('w401')).toBe(401);
  expect(model.placeOf('w150')).toBe(-1);
});

test('another generation has what is in sight fetched again, under the condition of its ETag', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  model.show({ first: 200, last: 220 });
  await pass();
  index.asked = [];
  index.change('g2', 1_001);
  await pass();
  expect(index.asked).toEqual([{ offset: 200, text: undefined, sort: '-created', etag: 'g1' }]);
  expect(model.total).toBe(1_001);
  model.show({ first: 0, last: 20 });
  await pass();
  expect(index.offsets).toContain(0);
});

test('what has not changed stays', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  const before = model.at(3);
  model.refresh();
  await pass();
  expect(model.at(3)).toBe(before);
  expect(index.asked).toHaveLength(2);
});

test('a change while a page is under way is not missed', async () => {
  model.show({ first: 0, last: 20 });
  await pass(10);
  index.change('g2', 7);
  await pass();
  expect(model.total).toBe(7);
  expect(index.asked).toHaveLength(2);
});

test('a search waits for the end of typing, and the old list stays meanwhile', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  index.asked = [];
  const filtered = vi.fn();
  model.filtered.connect(filtered);
  for (const text of ['9', '99', '999']) {
    model.change({ text });
    await pass(100);
  }
  expect(index.asked).toEqual([]);
  expect(model.total).toBe(1_000);
  await pass(500);
  expect(index.asked.map(one => one.text)).toEqual(['999']);
  expect(model.total).toBe(1);
  expect(model.unfiltered).toBe(false);
  expect(filtered).toHaveBeenCalledTimes(1);
});

test('the answer to an older question is not shown', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  model.change({ tags: ['x'] });
  model.change({ tags: [], sort: 'name', descending: false });
  await pass();
  expect(index.asked.at(-1)?.sort).toBe('name');
  expect(model.filter.sort).toBe('name');
});

test('an error is told, does not loop, and goes with the next answer', async () => {
  index.fails = new CWMError('It does not answer.', 0, 'server.unreachable');
  model.show({ first: 0, last: 20 });
  await pass(5_000);
  expect(model.error).toBe(index.fails);
  expect(index.asked).toHaveLength(1);
  index.fails = null;
  model.refresh();
  await pass();
  expect(model.error).toBeNull();
  expect(model.total).toBe(1_000);
});

test('a list that was read through is not kept whole', async () => {
  index.size = 10_000;
  model.show({ first: 0, last: 20 });
  await pass();
  for (let first = 0; first < 10_000; first += 100) {
    model.show({ first, last: first + 20 });
    await pass();
  }
  const kept = Array.from({ length: 100 }, (_, page) => model.at(page * PAGE)).filter(Boolean);
  expect(kept.length).toBeLessThanOrEqual(30);
  expect(model.at(9_900)).not.toBeNull();
});

test('pages beyond a shorter list are forgotten', async () => {
  model.show({ first: 900, last: 950 });
  await pass();
  model.show({ first: 0, last: 20 });
  await pass();
  index.change('g2', 5);
  await pass();
  expect(model.at(900)).toBeNull();
  expect(model.total).toBe(5);
});

test('the chosen window is the newest that is known of it', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  const changed = vi.fn();
  model.current = model.at(2);
  model.currentChanged.connect(changed);
  index.change('g2');
  await pass();
  expect(model.current).toBe(model.at(2));
  expect(changed).toHaveBeenCalledTimes(1);
  expect(model.tags).toEqual(['t0', 't1', 't2', 't3', 't4', 't5', 't6', 't7', 't8', 't9']);
});

test('what is disposed asks nothing more', async () => {
  model.show({ first: 0, last: 20 });
  await pass();
  model.change({ text: 'x' });
  model.dispose();
  index.asked = [];
  index.change('g2');
  await pass(1_000);
  expect(index.asked).toEqual([]);
  expect((model.at(0) as Window | null)?.id).toBe('w0');
});
