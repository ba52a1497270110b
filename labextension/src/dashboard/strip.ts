/** A window's chunks as a strip: one cell for each, or for several where there are very many. */
import type { ChunkStrip } from '../api/types';
import type { ICWM } from '../tokens';
import { element } from '../dom';

export type Place = ChunkStrip['places'][number];

/** From the best to the worst: of several chunks in one cell the worst is shown. */
const PLACES: readonly Place[] = ['disk', 'recomputed', 'unknown', 'other', 'missing'];
const MOST_CELLS = 400;

/** The strip's cells. */
export function cells(places: readonly Place[], most = MOST_CELLS): { place: Place; of: number }[] {
  const size = Math.max(Math.ceil(places.length / most), 1);
  const found: { place: Place; of: number }[] = [];
  for (let start = 0; start < places.length; start += size) {
    const group = places.slice(start, start + size);
    const worst = Math.max(...group.map(place => PLACES.indexOf(place)));
    found.push({ place: PLACES[worst], of: group.length });
  }
  return found;
}

/** How many chunks there are of each kind, the best first. */
export function totals(places: readonly Place[]): [Place, number][] {
  return PLACES.map((place): [Place, number] => [
    place,
    places.filter(one => one === place).length
  ]).filter(([, count]) => count > 0);
}

/** The strip, and the same in words. */
export function drawStrip(strip: ChunkStrip, trans: ICWM['trans']): HTMLElement {
  const names: Record<Place, string> = {
    disk: trans.__('on disk, as frozen'),
    recomputed: trans.__('on disk, recomputed'),
    unknown: trans.__('unknown'),
    other: trans.__('on disk, with other bytes'),
    missing: trans.__('missing')
  };
  const words = totals(strip.places).map(([place, count]) => {
    const key = element('span', `cwm-Strip-key cwm-mod-${place}`);
    key.setAttribute('aria-hidden', 'true');
    return element('li', '', key, `${count} ${names[place]}`);
  });
  if (strip.tail_tokens > 0) {
    words.push(
      element('li', '', trans.__('the last %1 tokens are computed anew', strip.tail_tokens))
    );
  }
  const picture = element('div', 'cwm-Strip-cells');
  picture.setAttribute('aria-hidden', 'true'); // the words say it
  for (const { place, of } of cells(strip.places)) {
    const cell = element('span', `cwm-mod-${place}`);
    cell.style.flexGrow = String(of);
    picture.append(cell);
  }
  return element('div', 'cwm-Strip', picture, element('ul', 'cwm-Strip-words', ...words));
}
