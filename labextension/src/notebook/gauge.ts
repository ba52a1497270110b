/** How full a notebook's context is, in its toolbar. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { count } from '../format';
import type { Settings } from '../settings';
import type { KernelSession } from './kernel';
import type { NotebookSession } from './session';

/** A small bar and the figures beside it. */
export class Gauge extends Widget {
  constructor(
    private readonly session: NotebookSession,
    private readonly settings: Settings,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('cwm-Gauge');
    this.addClass('jp-Toolbar-item');
    this.fill.className = 'cwm-Gauge-fill';
    this.bar.className = 'cwm-Gauge-bar';
    this.bar.setAttribute('role', 'meter');
    this.bar.setAttribute('aria-label', trans.__('Context used'));
    this.bar.append(this.fill);
    this.figures.className = 'cwm-Gauge-figures';
    this.node.append(this.bar, this.figures);
    session.changed.connect(this.draw, this);
    settings.changed.connect(this.draw, this);
    this.draw();
  }

  dispose(): void {
    this.session.changed.disconnect(this.draw, this);
    this.settings.changed.disconnect(this.draw, this);
    super.dispose();
  }

  private draw(): void {
    const session = this.session.facts.session;
    this.setHidden(session === null || !this.settings.showGauge);
    if (session === null) {
      return;
    }
    const most = session.max_context_tokens;
    const share = usedShare(session);
    this.bar.hidden = share === null;
    this.fill.style.width = `${100 * (share ?? 0)}%`;
    this.node.dataset['level'] = level(share);
    this.bar.setAttribute('aria-valuemin', '0');
    this.bar.setAttribute('aria-valuemax', String(most ?? session.tokens));
    this.bar.setAttribute('aria-valuenow', String(session.tokens));
    this.bar.setAttribute('aria-valuetext', figures(session));
    this.figures.textContent = figures(session);
    this.node.title = explained(session, this.trans);
  }

  private readonly bar = document.createElement('div');
  private readonly fill = document.createElement('div');
  private readonly figures = document.createElement('span');
}

/** The share of the model's context that is used, at most 1; null: not known. */
export function usedShare(session: KernelSession): number | null {
  const most = session.max_context_tokens;
  return most ? Math.min(session.tokens / most, 1) : null;
}

/** From 80% on one should think of a fresh session, from 95% on the next turn may not fit. */
export function level(share: number | null): 'calm' | 'high' | 'full' {
  return share === null || share < 0.8 ? 'calm' : share < 0.95 ? 'high' : 'full';
}

/** `1.2k / 8.2k`, or what is known of it. */
export function figures(session: KernelSession): string {
  const most = session.max_context_tokens;
  return most === null ? count(session.tokens) : `${count(session.tokens)} / ${count(most)}`;
}

/** All that is known, in lines. */
export function explained(session: KernelSession, trans: TranslationBundle): string {
  const { name, tokens, turns, max_context_tokens: most } = session;
  const lines = [
    trans.__('Session %1', name),
    most === null
      ? trans.__('%1 tokens', tokens.toLocaleString())
      : trans.__('%1 of %2 tokens', tokens.toLocaleString(), most.toLocaleString()),
    trans._n('%1 turn', '%1 turns', turns)
  ];
  if (session.cached_tokens !== null && session.computed_tokens !== null) {
    lines.push(
      trans.__(
        'Last prompt: %1 from cache, %2 computed',
        session.cached_tokens.toLocaleString(),
        session.computed_tokens.toLocaleString()
      )
    );
  }
  return lines.join('\n');
}
