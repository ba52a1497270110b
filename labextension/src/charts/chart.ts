/** A picture that is drawn by Plotly, which is loaded when the first one is, and updated in place. */
import type { IDisposable } from '@lumino/disposable';
import type * as Plotly from 'plotly.js-basic-dist-min';

import { coloursAt, emptyNote, type Figure, themed, titleOf } from './theme';

type Library = typeof Plotly;

let loading: Promise<Library> | null = null;

/** Plotly; asked for again where it could not be loaded. */
export function plotly(): Promise<Library> {
  loading ??= import('plotly.js-basic-dist-min').then(
    module => (module as { default?: Library }).default ?? module,
    (error: unknown) => {
      loading = null;
      throw error;
    }
  );
  return loading;
}

let count = 0;

/** A figure element with a heading and a picture, or with words where there is nothing to see. */
export class Chart implements IDisposable {
  /** Called with the `customdata` of what was clicked. */
  clicked: ((data: unknown) => void) | null = null;

  constructor(
    title: string,
    private readonly library: () => Promise<Library> = plotly
  ) {
    const id = `cwm-chart-${count++}`;
    this.node.className = 'cwm-Chart';
    this.heading.id = id;
    this.heading.textContent = title;
    this.node.setAttribute('aria-labelledby', id);
    this.note.className = 'cwm-Chart-note';
    this.plot.className = 'cwm-Chart-plot';
    this.plot.hidden = true;
    const caption = document.createElement('figcaption');
    caption.append(this.heading);
    this.node.append(caption, this.note, this.plot);
  }

  readonly node = document.createElement('figure');

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Say something instead of a picture. */
  say(text: string): void {
    this.note.textContent = text;
    this.note.hidden = false;
    this.plot.hidden = true;
  }

  /** Draw a figure; the one before it becomes it. */
  async show(figure: Figure): Promise<void> {
    const note = emptyNote(figure);
    this.figure = note === null ? figure : null;
    this.heading.textContent = titleOf(figure) || this.heading.textContent;
    if (note !== null) {
      this.say(note);
      return;
    }
    const library = await this.library();
    // Another one may have come, or all may be over, while Plotly was loading.
    if (this._disposed || this.figure !== figure) {
      return;
    }
    this.note.hidden = true;
    this.plot.hidden = false;
    await this.draw(library, figure);
    this.drawn ??= this.begin(library);
  }

  /** Draw it again, in the colours of another theme. */
  async recolour(): Promise<void> {
    if (this.figure !== null && this.drawn !== null) {
      await this.draw(await this.library(), this.figure);
    }
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this.sized.disconnect();
      this.drawn?.purge(this.plot);
      this.drawn = null;
      this.node.remove();
    }
  }

  private draw(library: Library, { data, layout }: Figure): Promise<unknown> {
    const config = { displayModeBar: false, displaylogo: false };
    return library.react(this.plot, data, themed(layout, coloursAt(this.node)), config);
  }

  private begin(library: Library): Library {
    this.plot.on?.('plotly_click', ({ points }) => this.clicked?.(points[0]?.customdata));
    this.sized.observe(this.node);
    return library;
  }

  private resize(): void {
    // What is not in sight has no size, and Plotly would refuse it.
    if (this.drawn !== null && !this.plot.hidden && this.plot.offsetParent !== null) {
      void this.drawn.Plots.resize(this.plot);
    }
  }

  private readonly heading = document.createElement('h3');
  private readonly note = document.createElement('p');
  private readonly plot: Plotly.PlotElement = document.createElement('div');
  private readonly sized = new ResizeObserver(() => this.resize());
  private figure: Figure | null = null;
  private drawn: Library | null = null;
  private _disposed = false;
}
