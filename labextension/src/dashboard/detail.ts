/** One window: what it is, its turns, its chunks and its last thaws. */
import type { CommandRegistry } from '@lumino/commands';

import { part } from '../api/client';
import { CWMError } from '../api/errors';
import type { ChunkStrip, Window, WindowStatus } from '../api/types';
import { CommandIDs } from '../commands';
import { age, bytes, count, moment } from '../format';
import type { ICWM } from '../tokens';
import { knownAs } from '../windows';
import { Picture } from './charts';
import { button, element, table } from '../dom';
import { Section } from './section';
import { drawStrip } from './strip';

const ACTIONS = [
  CommandIDs.thawHere,
  CommandIDs.thawNew,
  CommandIDs.clone,
  CommandIDs.rename,
  CommandIDs.verify,
  CommandIDs.prefetch,
  CommandIDs.repair,
  CommandIDs.remove
];

export class Detail extends Section {
  constructor(
    private readonly cwm: ICWM,
    private readonly commands: CommandRegistry
  ) {
    super(cwm.trans.__('Window'), ['index']);
    this.node.classList.add('cwm-Detail');
    this.waterfall = new Picture(cwm, 'thaw_waterfall', cwm.trans.__('Latest thaw'), []);
    this.waterfall.query = null;
    cwm.windows.currentChanged.connect(this.follow, this);
    this.say();
  }

  /** Show a window, by its id or name, and bring it into sight. */
  choose(window: string): void {
    this.chosen = window;
    // What is there so far is short; it is scrolled to again once it has its length.
    this.wanted = true;
    void this.refresh();
  }

  recolour(): void {
    this.waterfall.recolour();
  }

  dispose(): void {
    this.cwm.windows.currentChanged.disconnect(this.follow, this);
    this.waterfall.dispose();
    super.dispose();
  }

  protected async load(): Promise<void> {
    const { chosen } = this;
    if (chosen === null) {
      this.say();
      return;
    }
    try {
      const path = `windows/${part(chosen)}`;
      const [status, strip] = await Promise.all([
        this.cwm.client.get<WindowStatus>(path),
        this.cwm.client.get<ChunkStrip>(`${path}/chunks`)
      ]);
      if (chosen === this.chosen && !this.isDisposed) {
        this.show(status, strip);
      }
    } catch (error) {
      if (!(error instanceof CWMError && error.status === 404)) {
        throw error;
      }
      this.chosen = null; // it was deleted
      this.say();
    }
  }

  /** The commands are about the window that is chosen in the list, so that is the one shown. */
  private follow(): void {
    const { current } = this.cwm.windows;
    if (current !== null && current.state !== 'deleted' && current.id !== this.chosen) {
      this.chosen = current.id;
      if (this.node.offsetParent !== null) {
        void this.refresh();
      }
    }
  }

  private say(): void {
    const { trans } = this.cwm;
    this.body.replaceChildren(
      element(
        'p',
        'cwm-Hint',
        trans.__('Choose a window in the sidebar, or in the family of windows, to look at it.')
      )
    );
  }

  private show(status: WindowStatus, strip: ChunkStrip): void {
    const { trans } = this.cwm;
    const { window } = status;
    this.chosen = window.id;
    this.cwm.windows.current = window;
    this.waterfall.query = window.last_thaws.length > 0 ? { window: window.id } : null;
    this.body.replaceChildren(
      element('h3', 'cwm-Detail-name', knownAs(window)),
      this.actions(),
      this.facts(status),
      element('h4', '', trans.__('Chunks')),
      drawStrip(strip, trans),
      this.turns(status),
      this.thaws(window),
      ...(this.waterfall.query === null ? [] : [this.waterfall.node])
    );
    void this.waterfall.refresh();
    if (this.wanted) {
      this.wanted = false;
      this.node.scrollIntoView({ block: 'start' });
    }
  }

  private actions(): HTMLElement {
    const buttons = ACTIONS.filter(id => this.commands.isVisible(id)).map(id => {
      const node = button(this.commands.label(id), () => {
        void this.commands.execute(id);
      });
      node.disabled = !this.commands.isEnabled(id);
      return node;
    });
    return element('div', 'cwm-Actions', ...buttons);
  }

  private facts(status: WindowStatus): HTMLElement {
    const { trans } = this.cwm;
    const { window } = status;
    const proof =
      window.proof.level === 'verified'
        ? trans.__('every chunk read and right at the freeze')
        : trans.__('chunks present at the freeze, not read');
    const facts: [string, string][] = [
      [trans.__('State'), window.state],
      [
        trans.__('Context'),
        trans.__(
          '%1 tokens in %2',
          count(window.tokens),
          trans._n('%1 turn', '%1 turns', window.turns)
        )
      ],
      [
        trans.__('Size'),
        trans.__(
          '%1; on disk %2, of which nothing else has %3',
          bytes(window.size_bytes),
          bytes(status.held_bytes),
          bytes(status.own_bytes)
        )
      ],
      [
        trans.__('Frozen'),
        trans.__('%1 (%2)', moment(window.created_at), age(window.created_at, trans))
      ],
      [trans.__('Proof'), proof],
      [trans.__('Model'), window.model]
    ];
    if (status.parent !== null) {
      facts.push([trans.__('Made from'), status.parent]);
    }
    if (status.children.length > 0) {
      facts.push([trans.__('Made from it'), status.children.join(', ')]);
    }
    if (status.versions.length > 1) {
      facts.push([trans.__('Versions'), status.versions.map(knownAs).join(', ')]);
    }
    if (window.tags.length > 0) {
      facts.push([trans.__('Tags'), window.tags.join(', ')]);
    }
    if (window.note !== '') {
      facts.push([trans.__('Note'), window.note]);
    }
    return element(
      'dl',
      'cwm-Facts',
      ...facts.flatMap(([name, value]) => [element('dt', '', name), element('dd', '', value)])
    );
  }

  private turns({ turns }: WindowStatus): HTMLElement {
    const { trans } = this.cwm;
    return table(
      trans.__('Turns'),
      [
        { head: trans.__('Turn'), number: true, cell: turn => String(turn.number) },
        { head: trans.__('Tokens'), number: true, cell: turn => String(turn.end - turn.start) },
        {
          head: trans.__('From cache'),
          number: true,
          cell: turn => (turn.cached_tokens === null ? '–' : String(turn.cached_tokens))
        },
        {
          head: trans.__('Computed'),
          number: true,
          cell: turn =>
            turn.cached_tokens === null ? '–' : String(turn.prompt_end - turn.cached_tokens)
        },
        {
          head: trans.__('First token'),
          number: true,
          cell: turn => (turn.ttft_s === null ? '–' : trans.__('%1 s', turn.ttft_s.toFixed(2)))
        }
      ],
      turns
    );
  }

  private thaws({ last_thaws: thaws }: Window): HTMLElement {
    const { trans } = this.cwm;
    if (thaws.length === 0) {
      return element('p', 'cwm-Hint', trans.__('It was not thawed yet.'));
    }
    return table(
      trans.__('Latest thaws'),
      [
        { head: trans.__('When'), cell: thaw => moment(thaw.at) },
        { head: trans.__('Session'), cell: thaw => thaw.session },
        {
          head: trans.__('From cache'),
          number: true,
          cell: thaw =>
            trans.__(
              '%1 of %2',
              thaw.cached_tokens === null ? '–' : thaw.cached_tokens,
              thaw.expected_cached_tokens
            )
        },
        {
          head: trans.__('Whole'),
          cell: thaw => (thaw.complete ? trans.__('yes') : trans.__('no'))
        },
        {
          head: trans.__('Took'),
          number: true,
          cell: thaw => trans.__('%1 s', thaw.restore_s.toFixed(2))
        }
      ],
      thaws
    );
  }

  private readonly waterfall: Picture;
  private chosen: string | null = null;
  private wanted = false;
}
