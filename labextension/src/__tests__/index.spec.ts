import { expect, test } from 'vitest';

import plugins from '..';

test('every plugin starts by itself and is named once', () => {
  const ids = plugins.map(plugin => plugin.id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const plugin of plugins) {
    expect(plugin.id).toMatch(/^cwm-jupyter:[a-z-]+$/);
    expect(plugin.autoStart).toBe(true);
  }
});
