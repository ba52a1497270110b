/** Small makers of elements. */

/** An element with a class and what is in it. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = '',
  ...content: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) {
    node.className = className;
  }
  node.append(...content);
  return node;
}

/** Words, with a role for screen readers where they have one. */
export function said<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  text: string,
  role = ''
): HTMLElementTagNameMap[K] {
  const node = element(tag, className, text);
  if (role) {
    node.setAttribute('role', role);
  }
  return node;
}

/** A button. */
export function button(label: string, press: () => void, title = ''): HTMLButtonElement {
  const node = element('button', 'cwm-Button', label);
  node.type = 'button';
  node.title = title;
  node.onclick = press;
  return node;
}

/** A column: its heading, whether it has numbers, and a cell's text or node. */
export interface Column<T> {
  head: string;
  number?: boolean;
  cell: (row: T) => Node | string;
}

/** A table with a caption, which scrolls sideways where it is too wide. */
export function table<T>(
  caption: string,
  columns: readonly Column<T>[],
  rows: readonly T[]
): HTMLElement {
  const head = element('tr');
  for (const { head: text, number } of columns) {
    const cell = element('th', number ? 'cwm-mod-number' : '', text);
    cell.scope = 'col';
    head.append(cell);
  }
  const body = element('tbody');
  for (const row of rows) {
    const line = element('tr');
    for (const { cell, number } of columns) {
      line.append(element('td', number ? 'cwm-mod-number' : '', cell(row)));
    }
    body.append(line);
  }
  const whole = element(
    'table',
    'cwm-Table',
    element('caption', '', caption),
    element('thead', '', head),
    body
  );
  const scroller = element('div', 'cwm-Scroller', whole);
  scroller.tabIndex = 0;
  scroller.setAttribute('role', 'region');
  scroller.setAttribute('aria-label', caption);
  return scroller;
}
