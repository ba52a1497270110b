/** The few functions of Plotly that are used here. */
declare module 'plotly.js-basic-dist-min' {
  export interface PlotElement extends HTMLElement {
    on?(event: 'plotly_click', call: (event: { points: Point[] }) => void): void;
    removeAllListeners?(event: 'plotly_click'): void;
  }
  export interface Point {
    customdata?: unknown;
  }
  export function react(
    node: PlotElement,
    data: unknown[],
    layout: object,
    config: object
  ): Promise<unknown>;
  export function purge(node: PlotElement): void;
  export namespace Plots {
    function resize(node: PlotElement): Promise<unknown>;
  }
}
