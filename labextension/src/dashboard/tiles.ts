/** The figures that matter most, above all else. */
import type { Overview, StackStatus, Statistics } from '../api/types';
import { bytes, count } from '../format';
import type { ICWM } from '../tokens';
import { element } from '../dom';
import { Section } from './section';

/** A figure, what it is, and more about it. */
interface Tile {
  name: string;
  value: string;
  more: string;
}

export class Tiles extends Section {
  constructor(private readonly cwm: ICWM) {
    super(cwm.trans.__('Overview'), ['index', 'statistics']);
    this.node.classList.add('cwm-Tiles');
    this.body.replaceWith(this.list);
  }

  protected async load(): Promise<void> {
    const { client } = this.cwm;
    const [overview, statistics, stack] = await Promise.all([
      client.get<Overview>('overview'),
      client.get<Statistics>('statistics'),
      client.get<StackStatus>('stack')
    ]);
    this.show(tiles(overview, statistics, stack, this.cwm.trans));
  }

  private show(tiles: readonly Tile[]): void {
    tiles.forEach(({ name, value, more }, place) => {
      const tile = (this.list.children[place] ??
        this.list.appendChild(
          element('div', 'cwm-Tile', element('dt'), element('dd'), element('dd', 'cwm-Tile-more'))
        )) as HTMLElement;
      [name, value, more].forEach((text, part) => {
        if (tile.children[part].textContent !== text) {
          tile.children[part].textContent = text;
        }
      });
    });
  }

  private readonly list = element('dl', 'cwm-Tiles-list');
}

/** What the tiles say; what cannot be told is said to be so, and never 0. */
export function tiles(
  overview: Overview,
  { engine, running }: Statistics,
  stack: StackStatus,
  trans: ICWM['trans']
): Tile[] {
  const computed = engine?.computed_tokens ?? null;
  const local = engine?.local_cache_tokens ?? null;
  const external = engine?.external_cache_tokens ?? null;
  const cached = local === null || external === null ? null : local + external;
  const asked = cached === null || computed === null ? null : cached + computed;
  const silent = running ? trans.__('the engine does not tell') : trans.__('no stack is running');
  const shared =
    overview.stored_bytes === null || overview.size_bytes === null
      ? ''
      : trans.__('%1 if each were kept alone', bytes(overview.size_bytes));
  return [
    {
      name: trans.__('Windows'),
      value: count(overview.windows),
      more:
        overview.damaged > 0
          ? trans.__('%1 damaged', overview.damaged)
          : trans.__('%1 tokens', count(overview.tokens))
    },
    {
      name: trans.__('On disk'),
      value: bytes(overview.stored_bytes ?? overview.size_bytes),
      more: shared
    },
    {
      name: trans.__('Saved by thaws'),
      value: overview.saved_s === null ? '–' : duration(overview.saved_s, trans),
      more:
        overview.thaws === 0
          ? trans.__('nothing was thawed yet')
          : trans._n('%1 thaw', '%1 thaws', overview.thaws)
    },
    {
      name: trans.__('Tokens from cache'),
      value: count(cached),
      more: cached === null ? silent : trans.__('since the engine’s start')
    },
    {
      name: trans.__('Hit rate'),
      value: asked ? `${Math.round((100 * (cached ?? 0)) / asked)} %` : '–',
      more:
        asked === null
          ? silent
          : asked === 0
            ? trans.__('nothing was asked yet')
            : trans.__('of %1 prompt tokens', count(asked))
    },
    { name: trans.__('Stack'), value: phase(stack, trans), more: stack.model ?? '' }
  ];
}

/** The stack's state in a word. */
export function phase({ phase }: StackStatus, trans: ICWM['trans']): string {
  return {
    up: trans.__('up'),
    down: trans.__('down'),
    starting: trans.__('starting'),
    degraded: trans.__('degraded')
  }[phase];
}

/** A span of time, as `4.2 s`, `3 min`, `2.5 h`. */
export function duration(seconds: number, trans: ICWM['trans']): string {
  if (seconds < 90) {
    return trans.__('%1 s', seconds < 10 ? seconds.toFixed(1) : Math.round(seconds));
  }
  return seconds < 5400
    ? trans.__('%1 min', Math.round(seconds / 60))
    : trans.__('%1 h', (seconds / 3600).toFixed(1));
}
