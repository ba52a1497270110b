/** Dragging a window into a notebook, which gets a cell that thaws it. */
import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';

import type { Window } from '../api/types';
import { thawLine } from '../names';
import { codeCell } from '../notebook/cells';
import { knownAs } from '../windows';

/** What Lab's notebooks take. */
const CELLS = 'application/vnd.jupyter.cells';
/** A click moves the mouse a little, too (px). */
const FAR = 5;

/** Begin to drag once the mouse, pressed on a row, has gone far enough. */
export function dragOnMove(
  down: MouseEvent,
  window: Window,
  row: HTMLElement,
  source: object
): void {
  const end = new AbortController();
  const { signal } = end;
  const move = (event: MouseEvent): void => {
    if (Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < FAR) {
      return;
    }
    end.abort();
    const line = thawLine(knownAs(window));
    const mimeData = new MimeData();
    mimeData.setData(CELLS, [codeCell(line)]);
    mimeData.setData('text/plain', line);
    const drag = new Drag({
      mimeData,
      dragImage: image(row, line),
      proposedAction: 'copy',
      supportedActions: 'copy',
      source
    });
    void drag.start(event.clientX, event.clientY).then(() => drag.dispose());
  };
  document.addEventListener('mousemove', move, { signal });
  document.addEventListener('mouseup', () => end.abort(), { signal });
}

function image(row: HTMLElement, line: string): HTMLElement {
  const node = document.createElement('div');
  node.className = 'cwm-DragImage';
  node.textContent = line;
  node.style.maxWidth = `${row.clientWidth}px`;
  return node;
}
