/** The pictures: each a figure of the server's. */
import type { Query } from '../api/client';
import { Chart } from '../charts/chart';
import type { Figure } from '../charts/theme';
import type { ICWM } from '../tokens';
import { type Cause, Section } from './section';

/** A section with one picture. */
export class Picture extends Section {
  constructor(
    private readonly cwm: ICWM,
    private readonly name: string,
    title: string,
    causes: readonly Cause[],
    clicked: ((data: unknown) => void) | null = null
  ) {
    super(title, causes, 'h3');
    this.node.classList.add('cwm-Picture');
    this.chart = new Chart(title);
    this.chart.clicked = clicked;
    // The picture has a heading of its own, which says more.
    this.node.replaceChildren(this.chart.node);
    this.node.setAttribute('aria-label', title);
    this.node.removeAttribute('aria-labelledby');
    this.node.append(this.problem);
    this.chart.say(cwm.trans.__('Loading…'));
  }

  /** What the figure is asked for with; null: nothing is to be drawn now. */
  query: Query | null = {};

  recolour(): void {
    void this.chart.recolour();
  }

  dispose(): void {
    this.chart.dispose();
    super.dispose();
  }

  protected async load(): Promise<void> {
    if (this.query !== null) {
      await this.chart.show(await this.cwm.client.get<Figure>(`figures/${this.name}`, this.query));
    }
  }

  private readonly chart: Chart;
}

/** All pictures of the caches and windows; `choose` is called with a window that was clicked. */
export function pictures(cwm: ICWM, choose: (id: string) => void): Picture[] {
  const { trans } = cwm;
  const of = (
    name: string,
    title: string,
    cause: Cause,
    clicked: ((data: unknown) => void) | null = null
  ): Picture => new Picture(cwm, name, title, [cause], clicked);
  const clicked = (data: unknown): void => {
    if (typeof data === 'string') {
      choose(data);
    }
  };
  return [
    of('cache_by_tier', trans.__('Cache by tier'), 'statistics'),
    of('hit_rate', trans.__('Hit rate'), 'statistics'),
    of('tokens_by_source', trans.__('Prompt tokens: computed, or saved by a cache'), 'statistics'),
    of('thaw_against_recompute', trans.__('Thaw against prefill'), 'index'),
    of('bytes_by_window', trans.__('Bytes by window'), 'index'),
    of('family_tree', trans.__('Family of windows'), 'index', clicked)
  ];
}
