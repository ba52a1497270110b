/** Figures as the server draws them, in the colours of Lab's theme. */

/** Plotly's JSON. */
export interface Figure {
  data: unknown[];
  layout: Record<string, unknown>;
}

/** What the theme says. */
export interface Colours {
  ink: string;
  grid: string;
  paper: string;
  font: string;
}

/** The title that a figure has. */
export function titleOf(figure: Figure): string {
  const title = figure.layout['title'] as { text?: string } | undefined;
  return title?.text ?? '';
}

/** What a figure without data says instead; null: it has data. */
export function emptyNote(figure: Figure): string | null {
  const notes = figure.layout['annotations'] as { text?: string }[] | undefined;
  return figure.data.length === 0 ? (notes?.[0]?.text ?? '') : null;
}

/**
 * The layout in the theme's colours, as wide as its place.
 *
 * The title stands above the picture, as text: Plotly's neither wraps nor is a heading.
 */
export function themed(layout: Figure['layout'], colours: Colours): Figure['layout'] {
  const { width: _, title: __, ...rest } = layout;
  const axis = (name: string): object => ({
    ...(layout[name] as object | undefined),
    gridcolor: colours.grid,
    zerolinecolor: colours.grid,
    linecolor: colours.grid
  });
  return {
    ...rest,
    autosize: true,
    font: { ...(layout['font'] as object), color: colours.ink, family: colours.font, size: 11 },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    xaxis: axis('xaxis'),
    yaxis: axis('yaxis'),
    hoverlabel: {
      bgcolor: colours.paper,
      bordercolor: colours.grid,
      font: { color: colours.ink, family: colours.font }
    },
    margin: { l: 48, r: 12, t: layout['showlegend'] === false ? 8 : 32, b: 40 }
  };
}

/** The theme's colours as they are at a node. */
export function coloursAt(node: HTMLElement): Colours {
  const style = getComputedStyle(node);
  const of = (name: string, otherwise: string): string =>
    style.getPropertyValue(name).trim() || otherwise;
  return {
    ink: of('--jp-ui-font-color1', '#333333'),
    grid: of('--jp-border-color2', '#cccccc'),
    paper: of('--jp-layout-color1', '#ffffff'),
    font: of('--jp-ui-font-family', 'sans-serif')
  };
}
