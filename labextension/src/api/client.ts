/** Requests to the server extension. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { CWMError } from './errors';

/** The version of the API that this was written for; the path has it too. */
export const API_VERSION = 1;

const ROOT = 'cwm/api/v1';

export type Query = Record<string, string | number | boolean | string[] | undefined>;

/** An answer, and the index's generation that it shows where the server told one. */
export interface Answer<T> {
  value: T;
  etag: string | null;
}

/** Asks the server; every method may throw a CWMError. */
export class Client {
  constructor(readonly settings: ServerConnection.ISettings = ServerConnection.makeSettings()) {}

  /** The URL of a path below the API's root. */
  url(path: string, query: Query = {}): string {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== undefined) {
          parameters.append(name, String(one));
        }
      }
    }
    const asked = parameters.toString();
    return URLExt.join(this.settings.baseUrl, ROOT, path) + (asked ? `?${asked}` : '');
  }

  async get<T>(path: string, query: Query = {}): Promise<T> {
    return (await this.request<T>('GET', this.url(path, query))).value as T;
  }

  /** As `get`; `null` where the client has the answer already, by its ETag. */
  async getIfChanged<T>(
    path: string,
    query: Query,
    etag: string | null
  ): Promise<Answer<T> | null> {
    const headers: Record<string, string> = etag === null ? {} : { 'If-None-Match': etag };
    const answer = await this.request<T>('GET', this.url(path, query), undefined, headers);
    return answer.value === null ? null : { value: answer.value, etag: answer.etag };
  }

  async post<T>(path: string, body?: object): Promise<T> {
    return (await this.request<T>('POST', this.url(path), body)).value as T;
  }

  async patch<T>(path: string, body: object): Promise<T> {
    return (await this.request<T>('PATCH', this.url(path), body)).value as T;
  }

  async delete<T>(path: string): Promise<T> {
    return (await this.request<T>('DELETE', this.url(path))).value as T;
  }

  /** A response as it comes, for the event channel. */
  async stream(path: string, signal: AbortSignal): Promise<Response> {
    const response = await this.fetch(this.url(path), {
      method: 'GET',
      headers: { Accept: 'text/event-stream' },
      cache: 'no-cache',
      signal
    });
    if (!response.ok) {
      throw CWMError.of(await document(response), response.status);
    }
    return response;
  }

  private async request<T>(
    method: string,
    url: string,
    body?: object,
    headers: Record<string, string> = {}
  ): Promise<{ value: T | null; etag: string | null }> {
    const response = await this.fetch(url, {
      method,
      headers: { ...headers, ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
      cache: 'no-cache' // with Lab's own 'no-store' each URL would get a parameter that is none
    });
    if (response.status === 304) {
      return { value: null, etag: response.headers.get('ETag') };
    }
    const value = await document(response);
    if (!response.ok) {
      throw CWMError.of(value, response.status);
    }
    return { value: value as T, etag: response.headers.get('ETag') };
  }

  private async fetch(url: string, init: RequestInit): Promise<Response> {
    try {
      return await ServerConnection.makeRequest(url, init, this.settings);
    } catch (error) {
      if (init.signal?.aborted) {
        throw error;
      }
      throw new CWMError('The Jupyter server does not answer.', 0, 'server.unreachable');
    }
  }
}

/** A name as a part of a path. */
export function part(name: string): string {
  return encodeURIComponent(name);
}

async function document(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    return null;
  }
}
