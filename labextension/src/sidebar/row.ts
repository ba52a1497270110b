/** One row of the list. */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Window } from '../api/types';
import { age, bytes, count, moment } from '../format';
import { pinIcon } from '../icons';
import { knownAs } from '../windows';

/** The height of each row (px); the style sheet has it too. */
export const ROW_PX = 44;

/** A row's node; `fill` shows a window in it. */
export function makeRow(): HTMLElement {
  const row = document.createElement('div');
  row.className = 'cwm-Item';
  row.setAttribute('role', 'option');
  return row;
}

/** Show a window, or that it is still being fetched. */
export function fill(row: HTMLElement, window: Window | null, trans: TranslationBundle): void {
  row.replaceChildren();
  row.classList.toggle('cwm-mod-loading', window === null);
  if (window === null) {
    row.removeAttribute('data-state');
    row.title = '';
    row.setAttribute('aria-label', trans.__('Loading'));
    return;
  }
  row.dataset['state'] = window.state;
  row.title = explained(window, trans);
  row.setAttribute('aria-label', spoken(window, trans));
  const name = piece('cwm-Item-name', knownAs(window));
  const head = piece('cwm-Item-head');
  head.append(piece('cwm-Item-state'), name);
  if (window.pinned) {
    const pin = pinIcon.element({ className: 'cwm-Item-pin', tag: 'span', width: '12px' });
    head.append(pin);
  }
  head.append(piece('cwm-Item-age', age(window.created_at, trans)));
  const facts = piece('cwm-Item-facts');
  if (window.state !== 'intact') {
    facts.append(piece('cwm-Item-badge', stateWord(window, trans)));
  }
  const tags = piece('cwm-Item-tags');
  tags.append(...window.tags.map(tag => piece('cwm-Tag', tag)));
  facts.append(
    tags,
    piece('cwm-Item-figure', trans.__('%1 tok', count(window.tokens))),
    piece('cwm-Item-figure cwm-mod-bytes', bytes(window.size_bytes))
  );
  row.append(head, facts);
}

function piece(className: string, text = ''): HTMLElement {
  const node = document.createElement('span');
  node.className = className;
  node.textContent = text;
  return node;
}

function stateWord(window: Window, trans: TranslationBundle): string {
  switch (window.state) {
    case 'damaged':
      return trans.__('damaged');
    case 'deleted':
      return trans.__('deleted');
    default:
      return trans.__('intact');
  }
}

/** What a screen reader says. */
function spoken(window: Window, trans: TranslationBundle): string {
  return [
    knownAs(window),
    stateWord(window, trans),
    ...(window.pinned ? [trans.__('pinned')] : []),
    trans.__('%1 tokens', window.tokens),
    bytes(window.size_bytes),
    age(window.created_at, trans),
    ...window.tags
  ].join(', ');
}

/** What is shown when the mouse rests on it. */
function explained(window: Window, trans: TranslationBundle): string {
  const lines = [
    knownAs(window),
    trans.__(
      '%1 tokens in %2, %3',
      window.tokens.toLocaleString(),
      trans._n('%1 turn', '%1 turns', window.turns),
      bytes(window.size_bytes)
    ),
    trans.__('Model: %1', window.model),
    trans.__('Frozen: %1', moment(window.created_at)),
    window.used_at === null
      ? trans.__('Never thawed')
      : trans.__('Last used: %1', moment(window.used_at))
  ];
  if (window.note !== '') {
    lines.push('', window.note.slice(0, 500));
  }
  return lines.join('\n');
}
