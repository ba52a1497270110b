import { nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { expect, test } from 'vitest';

import { Settings } from '../../settings';
import { explained, figures, Gauge, level, usedShare } from '../gauge';
import { UNKNOWN, type KernelFacts, type KernelSession } from '../kernel';

const trans = nullTranslator.load('');
const reading: KernelSession = {
  name: 'reading',
  tokens: 1_234,
  max_context_tokens: 8_192,
  turns: 3,
  cached_tokens: 1_024,
  computed_tokens: 96
};

test('used of most, in few characters', () => {
  expect(figures(reading)).toBe('1.2k / 8.2k');
  expect(figures({ ...reading, max_context_tokens: null })).toBe('1.2k');
  expect(usedShare(reading)).toBeCloseTo(0.1506, 3);
  expect(usedShare({ ...reading, tokens: 9_000 })).toBe(1);
  expect(usedShare({ ...reading, max_context_tokens: null })).toBeNull();
});

test('it warns before the context is full', () => {
  expect([null, 0.5, 0.8, 0.95, 1].map(level)).toEqual(['calm', 'calm', 'high', 'full', 'full']);
});

test('all that is known, and nothing that is not', () => {
  expect(explained(reading, trans).split('\n')).toEqual([
    'Session reading',
    '1,234 of 8,192 tokens',
    '3 turns',
    'Last prompt: 1,024 from cache, 96 computed'
  ]);
  expect(explained({ ...reading, cached_tokens: null }, trans)).not.toContain('cache');
});

test('it shows a session, and hides where there is none or the user wants none', () => {
  const session = { facts: UNKNOWN as KernelFacts, changed: null as never };
  const changed = new Signal<object, void>(session);
  session.changed = changed as never;
  const settings = new Settings();
  const gauge = new Gauge(session as never, settings, trans);
  expect(gauge.isHidden).toBe(true);
  session.facts = { ...UNKNOWN, session: reading };
  changed.emit();
  expect(gauge.isHidden).toBe(false);
  const meter = gauge.node.querySelector('[role=meter]')!;
  expect(meter.getAttribute('aria-valuenow')).toBe('1234');
  expect(meter.getAttribute('aria-valuemax')).toBe('8192');
  settings.showGauge = false;
  changed.emit();
  expect(gauge.isHidden).toBe(true);
  gauge.dispose();
  changed.emit();
});
