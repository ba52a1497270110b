import { nullTranslator } from '@jupyterlab/translation';
import { expect, test, vi } from 'vitest';

import { CWMError } from '../api/errors';
import { Version } from '../version';

const trans = nullTranslator.load('');

function shaken(answer: object | Error): { version: Version; warn: ReturnType<typeof vi.fn> } {
  const get = async (): Promise<never> => {
    if (answer instanceof Error) {
      throw answer;
    }
    return answer as never;
  };
  const warn = vi.fn();
  return { version: new Version({ get }, trans, warn), warn };
}

test('nothing is said of what fits', async () => {
  const { version, warn } = shaken({ api_version: 1, home: '/h' });
  await version.check();
  expect([version.problem, version.elsewhere, version.server?.home]).toEqual([null, null, '/h']);
  expect(warn).not.toHaveBeenCalled();
});

test.each([
  [2, 'newer'],
  [0, 'older']
])('version %s is told to be %s, once', async (api_version, word) => {
  const { version, warn } = shaken({ api_version, home: '/h' });
  await version.check();
  await version.check();
  expect(version.problem).toContain(word);
  expect(warn).toHaveBeenCalledTimes(1);
});

test('a server without the extension is told what to install', async () => {
  const { version, warn } = shaken(
    new CWMError('The server answered 404.', 404, 'server.unexpected')
  );
  await version.check();
  expect(version.problem).toContain('jupyter server extension list');
  expect(warn).toHaveBeenCalledTimes(1);
});

test('a server that does not answer is no matter of versions', async () => {
  const { version } = shaken(new CWMError('It does not answer.', 0, 'server.unreachable'));
  await version.check();
  expect(version.problem).toBeNull();
});

test('a kernel that looks elsewhere is told of, until it does no more', async () => {
  const { version, warn } = shaken({ api_version: 1, home: '/h' });
  version.kernelLooksAt('/other');
  expect(version.elsewhere).toBeNull();
  await version.check();
  expect(version.elsewhere).toContain('/other');
  version.kernelLooksAt('/h');
  expect(version.elsewhere).toBeNull();
  version.kernelLooksAt('/other');
  expect(warn).toHaveBeenCalledTimes(1);
});
