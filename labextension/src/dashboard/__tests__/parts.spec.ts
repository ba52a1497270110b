import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { Overview, StackStatus, Statistics } from '../../api/types';
import { Section } from '../section';
import { cells, drawStrip, totals } from '../strip';
import { duration, tiles } from '../tiles';

const trans = nullTranslator.load('');
const OVERVIEW: Overview = {
  windows: 3,
  damaged: 0,
  deleted: 1,
  sessions: 2,
  tokens: 12_300,
  size_bytes: 300e6,
  stored_bytes: 112e6,
  thaws: 0,
  saved_s: null
};
const STACK = { phase: 'down', model: null, parts: [] } as unknown as StackStatus;

function statistics(engine: object | null): Statistics {
  return { running: engine !== null, engine } as unknown as Statistics;
}

describe('tiles', () => {
  const values = (engine: object | null): string[] =>
    tiles(OVERVIEW, statistics(engine), STACK, trans).map(tile => `${tile.value}|${tile.more}`);

  it('says what is unavailable, and never 0', () => {
    const told = values(null);
    expect(told).toContain('–|no stack is running');
    expect(told.some(value => value.startsWith('0'))).toBe(false);
    expect(values({ computed_tokens: null })).toContain('–|the engine does not tell');
  });
  it('counts what came from a cache', () => {
    const engine = { computed_tokens: 100, local_cache_tokens: 200, external_cache_tokens: 100 };
    expect(values(engine)).toContain('75 %|of 400 prompt tokens');
    const none = { computed_tokens: 0, local_cache_tokens: 0, external_cache_tokens: 0 };
    expect(values(none)).toContain('–|nothing was asked yet');
  });
  it('tells times in their units', () => {
    expect([4.23, 42, 300, 9000].map(one => duration(one, trans))).toEqual([
      '4.2 s',
      '42 s',
      '5 min',
      '2.5 h'
    ]);
  });
});

describe('strip', () => {
  it('shows the worst of several chunks in one cell', () => {
    const places = Array.from({ length: 1000 }, () => 'disk' as const) as ('disk' | 'missing')[];
    places[501] = 'missing';
    const drawn = cells(places, 100);
    expect(drawn).toHaveLength(100);
    expect(drawn.filter(({ place }) => place === 'missing')).toHaveLength(1);
    expect(drawn[50].place).toBe('missing');
    expect(totals(places)).toEqual([
      ['disk', 999],
      ['missing', 1]
    ]);
  });
  it('says the same in words', () => {
    const node = drawStrip(
      { window: 'a', chunk_tokens: 128, tail_tokens: 7, places: ['disk', 'other'] },
      trans
    );
    expect(node.querySelector('ul')!.textContent).toContain('1 on disk, with other bytes');
    expect(node.querySelector('ul')!.textContent).toContain('last 7 tokens');
    expect(cells([])).toEqual([]);
  });
});

describe('Section', () => {
  it('loads one at a time, and once more for all that came meanwhile', async () => {
    let loads = 0;
    let release = (): void => undefined;
    class Slow extends Section {
      protected async load(): Promise<void> {
        loads += 1;
        await new Promise<void>(resolve => (release = resolve));
      }
    }
    const section = new Slow('Slow', []);
    const first = section.refresh();
    await section.refresh();
    await section.refresh();
    expect(loads).toBe(1);
    release();
    await new Promise(resolve => setTimeout(resolve));
    expect(loads).toBe(2);
    release();
    await first;
    expect(loads).toBe(2);
  });
  it('says what went wrong until it is right again', async () => {
    let broken = true;
    class Broken extends Section {
      protected async load(): Promise<void> {
        if (broken) {
          throw new Error('It is down.');
        }
      }
    }
    const section = new Broken('Broken', []);
    await section.refresh();
    expect(section.node.querySelector('.cwm-Problem')!.textContent).toBe('It is down.');
    broken = false;
    await section.refresh();
    expect((section.node.querySelector('.cwm-Problem') as HTMLElement).hidden).toBe(true);
  });
});
