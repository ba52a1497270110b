import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'jsdom',
    setupFiles: ['vitest.setup.ts'],
    include: ['src/**/__tests__/*.spec.ts'],
    // Lab's packages import each other's folders and style sheets as only a bundler can.
    server: { deps: { inline: [/@jupyter/, /@lumino/, /@microsoft/] } },
    css: false
  }
});
