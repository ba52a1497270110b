/** The cache dashboard: sections in one column or two, loaded anew when what they show changes. */
import type { IThemeManager } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';
import type { IDisposable } from '@lumino/disposable';
import type { Message } from '@lumino/messaging';

import type { ICWM } from '../tokens';
import type { Version } from '../version';
import { Watching } from '../watching';
import { pictures } from './charts';
import { Detail } from './detail';
import { element } from '../dom';
import type { Cause, Section } from './section';
import { Stack } from './stack';
import { Tiles } from './tiles';
import { AuditSection, JobsSection } from './work';

/** Changes often come several at once, and jobs tell of each step. */
const TOGETHER_MS = 400;

export class Dashboard extends Watching {
  constructor(
    private readonly cwm: ICWM,
    private readonly version: Version,
    commands: CommandRegistry,
    private readonly themes: IThemeManager | null
  ) {
    super();
    this.addClass('cwm-Dashboard');
    this.node.tabIndex = -1;
    this.tiles = new Tiles(cwm);
    this.detail = new Detail(cwm, commands);
    const charts = pictures(cwm, id => this.choose(id));
    const stack = new Stack(cwm);
    const jobs = new JobsSection(cwm);
    const audit = new AuditSection(cwm);
    this.sections = [this.tiles, ...charts, this.detail, stack, jobs, audit];
    this.problem.setAttribute('role', 'alert');
    this.node.append(
      element(
        'header',
        'cwm-Dashboard-head',
        element('h1', '', cwm.trans.__('Context windows')),
        this.place
      ),
      this.problem,
      this.tiles.node,
      element('div', 'cwm-Pictures', ...charts.map(chart => chart.node)),
      this.detail.node,
      element('div', 'cwm-Columns', stack.node, jobs.node),
      audit.node
    );
    const { events } = cwm;
    events.index.connect(this.indexChanged, this);
    events.statistics.connect(this.statisticsChanged, this);
    events.job.connect(this.jobChanged, this);
    events.opened.connect(this.everything, this);
    events.stateChanged.connect(this.tell, this);
    version.changed.connect(this.tell, this);
    themes?.themeChanged.connect(this.recolour, this);
    this.tell();
  }

  /** Show a window in detail, by its id. */
  choose(window: string): void {
    this.detail.choose(window);
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.rest();
    const { events } = this.cwm;
    events.index.disconnect(this.indexChanged, this);
    events.statistics.disconnect(this.statisticsChanged, this);
    events.job.disconnect(this.jobChanged, this);
    events.opened.disconnect(this.everything, this);
    events.stateChanged.disconnect(this.tell, this);
    this.version.changed.disconnect(this.tell, this);
    this.themes?.themeChanged.disconnect(this.recolour, this);
    this.sections.forEach(section => section.dispose());
    super.dispose();
  }

  protected onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.focus();
  }

  /** Somebody looks: changes are heard of, and what was missed is loaded. */
  protected begin(): void {
    if (this.watching === null) {
      this.watching = this.cwm.events.watch();
      void this.version.check();
      // The figures that matter most come first; what is drawn takes the server longer.
      void this.tiles.refresh().then(() => this.everything());
    }
  }

  protected rest(): void {
    clearTimeout(this.soon);
    this.soon = undefined;
    this.due.clear();
    this.watching?.dispose();
    this.watching = null;
  }

  private indexChanged(): void {
    this.changed('index');
  }

  private statisticsChanged(): void {
    this.changed('statistics');
  }

  private jobChanged(): void {
    this.changed('job');
  }

  private everything(): void {
    this.changed('index', 'statistics', 'job');
  }

  private changed(...causes: Cause[]): void {
    if (this.watching === null) {
      return;
    }
    causes.forEach(cause => this.due.add(cause));
    this.soon ??= setTimeout(() => {
      this.soon = undefined;
      const due = new Set(this.due);
      this.due.clear();
      for (const section of this.sections) {
        if (section.causes.some(cause => due.has(cause))) {
          void section.refresh();
        }
      }
    }, TOGETHER_MS);
  }

  private tell(): void {
    const { trans, events } = this.cwm;
    const { server } = this.version;
    const problem =
      this.version.problem ??
      this.version.elsewhere ??
      (events.connected ? '' : trans.__('The server does not answer; trying again.'));
    this.problem.textContent = problem;
    this.problem.hidden = problem === '';
    this.place.textContent =
      server === null
        ? ''
        : trans.__(
            'Home %1; %2',
            server.home,
            server.stack === null
              ? trans.__('no stack')
              : trans.__('%1 at %2', server.stack.model ?? 'vLLM', server.stack.engine_url)
          );
  }

  private recolour(): void {
    // The style sheet of the new theme is in force with the next picture.
    requestAnimationFrame(() => this.sections.forEach(section => section.recolour()));
  }

  private readonly sections: readonly Section[];
  private readonly tiles: Tiles;
  private readonly detail: Detail;
  private readonly place = element('p', 'cwm-Hint');
  private readonly problem = element('p', 'cwm-Problem');
  private readonly due = new Set<Cause>();
  private soon: ReturnType<typeof setTimeout> | undefined;
  private watching: IDisposable | null = null;
}
