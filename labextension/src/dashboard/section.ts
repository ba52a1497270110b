/** A part of the dashboard: it knows what it depends on, and is loaded anew when that changes. */
import type { IDisposable } from '@lumino/disposable';

import { told } from '../api/errors';
import { element } from '../dom';

/** What a section depends on: the index, the caches' figures, jobs. */
export type Cause = 'index' | 'statistics' | 'job';

let count = 0;

export abstract class Section implements IDisposable {
  constructor(
    title: string,
    readonly causes: readonly Cause[],
    level: 'h2' | 'h3' = 'h2'
  ) {
    const heading = element(level, 'cwm-Section-title', title);
    heading.id = `cwm-section-${count++}`;
    this.node.setAttribute('aria-labelledby', heading.id);
    this.problem.hidden = true;
    this.node.append(heading, this.problem, this.body);
  }

  readonly node = element('section', 'cwm-Section');

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Load it anew; once more after that where it is asked for meanwhile. */
  async refresh(): Promise<void> {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      do {
        this.again = false;
        await this.attempt();
      } while (this.again && !this._disposed);
    } finally {
      this.loading = false;
    }
  }

  /** Take over the colours of another theme. */
  recolour(): void {}

  dispose(): void {
    this._disposed = true;
    this.node.remove();
  }

  /** Ask the server, and show what it says in `body`. */
  protected abstract load(): Promise<void>;

  private async attempt(): Promise<void> {
    let problem = '';
    try {
      await this.load();
    } catch (error) {
      problem = told(error);
    }
    if (this.problem.textContent !== problem) {
      this.problem.textContent = problem;
    }
    this.problem.hidden = problem === '';
  }

  protected readonly body = element('div', 'cwm-Section-body');
  protected readonly problem = element('p', 'cwm-Problem');
  private loading = false;
  private again = false;
  private _disposed = false;
}
