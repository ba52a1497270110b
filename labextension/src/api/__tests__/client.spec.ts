import { ServerConnection } from '@jupyterlab/services';
import { expect, test, vi } from 'vitest';

import { Client, part } from '../client';
import { CWMError, told } from '../errors';

type Fetched = { url: string; init: RequestInit };

/** A client of a server that gives these answers, and what it was asked. */
function served(...answers: (Response | Error)[]): { client: Client; asked: Fetched[] } {
  const asked: Fetched[] = [];
  const fetch = vi.fn(async (request: Request) => {
    asked.push({ url: request.url, init: request });
    const answer = answers.shift()!;
    if (answer instanceof Error) {
      throw answer;
    }
    return answer;
  });
  const settings = ServerConnection.makeSettings({
    baseUrl: 'http://localhost:8888/user/me/',
    token: 'abc',
    fetch: fetch as unknown as typeof globalThis.fetch
  });
  return { client: new Client(settings), asked };
}

function json(document: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(document), { status, headers });
}

test('paths are below the base URL, and lists are repeated parameters', async () => {
  const { client, asked } = served(json({ items: [] }));
  await client.get('windows', { tags: ['a', 'b c'], sort: '-created', text: undefined, limit: 5 });
  expect(asked[0].url).toBe(
    'http://localhost:8888/user/me/cwm/api/v1/windows?tags=a&tags=b+c&sort=-created&limit=5'
  );
});

test('names are escaped as a part of a path', () => {
  expect(part('a b/c#1')).toBe('a%20b%2Fc%231');
});

test('bodies are JSON, and the token goes along', async () => {
  const { client, asked } = served(json({ id: 'j' }, 202));
  expect(await client.post('windows', { name: 'x' })).toEqual({ id: 'j' });
  const request = asked[0].init as Request;
  expect(request.method).toBe('POST');
  expect(request.headers.get('Content-Type')).toBe('application/json');
  expect(request.headers.get('Authorization')).toBe('token abc');
  expect(await request.json()).toEqual({ name: 'x' });
});

test('a refusal has its code, what to do, and the field', async () => {
  const document = {
    code: 'window.exists',
    category: 'window',
    message: 'There is one.',
    hint: 'Choose another name.',
    context: { field: 'name' }
  };
  const { client } = served(json(document, 409));
  const error = await client.patch('windows/x', { name: 'y' }).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(CWMError);
  expect(error).toMatchObject({ status: 409, code: 'window.exists', field: 'name' });
  expect(told(error)).toBe('There is one. Choose another name.');
});

test('what is no document of ours is told by its status', async () => {
  const { client } = served(new Response('<html>Bad gateway</html>', { status: 502 }));
  const error = await client.delete('windows/x').catch((e: unknown) => e);
  expect(error).toMatchObject({ status: 502, code: 'server.unexpected' });
});

test('a server that does not answer is no riddle', async () => {
  const { client } = served(new TypeError('Failed to fetch'));
  const error = await client.get('version').catch((e: unknown) => e);
  expect(error).toMatchObject({ status: 0, code: 'server.unreachable' });
});

test('what has not changed is not sent again', async () => {
  const { client, asked } = served(
    json({ total: 1 }, 200, { ETag: '"g1"' }),
    new Response(null, { status: 304, headers: { ETag: '"g1"' } })
  );
  const first = await client.getIfChanged('windows', {}, null);
  expect(first).toEqual({ value: { total: 1 }, etag: '"g1"' });
  expect(await client.getIfChanged('windows', {}, first!.etag)).toBeNull();
  expect((asked[0].init as Request).headers.get('If-None-Match')).toBeNull();
  expect((asked[1].init as Request).headers.get('If-None-Match')).toBe('"g1"');
});
