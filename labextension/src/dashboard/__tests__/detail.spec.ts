import { nullTranslator } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { expect, it, vi } from 'vitest';

import type { Window } from '../../api/types';
import type { ICWM } from '../../tokens';
import { Detail } from '../detail';

function window(id: string): Window {
  const proof = { level: 'verified' };
  const facts = { tokens: 1, turns: 1, size_bytes: 1, created_at: '2026-01-01T00:00:00Z' };
  const lists = { tags: [], last_thaws: [], note: '', model: 'm', superseded: false };
  return { id, name: id, state: 'intact', proof, ...facts, ...lists } as unknown as Window;
}

class Windows {
  readonly currentChanged = new Signal<this, void>(this);
  get current(): Window | null {
    return this._current;
  }
  set current(window: Window | null) {
    this._current = window;
    this.currentChanged.emit();
  }
  private _current: Window | null = null;
}

function made(): { detail: Detail; windows: Windows; get: ReturnType<typeof vi.fn> } {
  const windows = new Windows();
  const get = vi.fn(async (path: string) => {
    const id = path.split('/')[1];
    return path.endsWith('chunks')
      ? { window: id, chunk_tokens: 128, tail_tokens: 0, places: [] }
      : { window: window(id), turns: [], children: [], versions: [], parent: null };
  });
  const trans = nullTranslator.load('');
  const cwm = { trans, windows, client: { get } } as unknown as ICWM;
  return { detail: new Detail(cwm, new CommandRegistry()), windows, get };
}

const name = (detail: Detail): string | undefined =>
  detail.node.querySelector('.cwm-Detail-name')?.textContent ?? undefined;

it('is about the window that the commands are about', async () => {
  const { detail, windows } = made();
  detail.node.scrollIntoView = vi.fn();
  detail.choose('one');
  await vi.waitFor(() => expect(name(detail)).toBe('one'));
  expect(windows.current?.id).toBe('one');
  expect(detail.node.scrollIntoView).toHaveBeenCalledOnce();
  windows.current = window('two');
  await detail.refresh();
  expect(name(detail)).toBe('two');
  expect(windows.current?.id).toBe('two');
  expect(detail.node.scrollIntoView).toHaveBeenCalledOnce();
});

it('asks nothing while it is not in sight, and nothing once it is disposed of', async () => {
  const { detail, windows, get } = made();
  windows.current = window('one');
  expect(get).not.toHaveBeenCalled();
  detail.dispose();
  windows.current = window('two');
  expect(get).not.toHaveBeenCalled();
});
