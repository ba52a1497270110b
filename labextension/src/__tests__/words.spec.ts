import { nullTranslator } from '@jupyterlab/translation';
import { expect, test } from 'vitest';

import { age, bytes, count } from '../format';
import { nameProblem, tagProblem, tagsIn, thawLine } from '../names';

const trans = nullTranslator.load('');

test.each([
  [null, '–'],
  [0, '0 B'],
  [999, '999 B'],
  [1_000, '1.0 kB'],
  [112_345_678, '112 MB'],
  [999_999_999, '1.0 GB'],
  [5_898_240, '5.9 MB']
])('%s bytes are %s', (size, shown) => expect(bytes(size)).toBe(shown));

test.each([
  [null, '–'],
  [950, '950'],
  [1_000, '1k'],
  [12_345, '12.3k'],
  [999_999, '1M'],
  [1_234_567, '1.2M']
])('%s is counted %s', (number, shown) => expect(count(number)).toBe(shown));

test.each([
  [5, 'now'],
  [300, '5 min'],
  [3 * 3600 + 5, '3 h'],
  [40 * 86_400, '40 d'],
  [800 * 86_400, '2 y'],
  [-100, 'now']
])('%s s ago is %s', (seconds, shown) => {
  const now = Date.parse('2026-05-01T00:00:00Z');
  expect(age(new Date(now - seconds * 1000).toISOString(), trans, now)).toBe(shown);
});

test.each(['paper', 'Thesis draft', 'кот', '論文', 'a.b-c_d+e=f(g)[h]!#~^', 'x'.repeat(128)])(
  '%s may be a name',
  name => expect(nameProblem(name, trans)).toBeNull()
);

test.each([
  ['', 'needed'],
  ['x'.repeat(129), '128'],
  ['a/b', '"/"'],
  ['a@b', '"@"'],
  ['a\nb', 'not allowed'],
  ['a\u00a0b', 'not allowed'],
  ['a\u200bb', 'not allowed'],
  ['-a', 'begin'],
  ['.a', 'begin'],
  ['a.', 'end'],
  ['a ', 'end']
])('%j may not be one', (name, why) => expect(nameProblem(name, trans)).toContain(why));

test('tags are shorter', () => {
  expect(tagProblem('x'.repeat(65), trans)).toContain('64');
  expect(tagsIn(' draft, ml  ml,keep ')).toEqual(['draft', 'ml', 'keep']);
  expect(tagsIn('  ')).toEqual([]);
});

test.each([
  ['paper', '%thaw paper'],
  ['paper@v2', '%thaw paper@v2'],
  ['thesis draft', '%thaw "thesis draft"'],
  ['a#b', '%thaw "a#b"'],
  ['a(b)', '%thaw "a(b)"']
])('%s is thawed by %s', (name, line) => expect(thawLine(name)).toBe(line));
