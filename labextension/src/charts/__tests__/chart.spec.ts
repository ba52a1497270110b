import { beforeEach, describe, expect, it, vi } from 'vitest';

import { Chart } from '../chart';
import { emptyNote, type Figure, themed } from '../theme';

const COLOURS = { ink: '#111', grid: '#ccc', paper: '#fff', font: 'sans' };
const FIGURE: Figure = {
  data: [{ type: 'bar' }],
  layout: { title: { text: 'Bytes' }, height: 340 }
};
const EMPTY: Figure = {
  data: [],
  layout: { title: { text: 'Bytes' }, annotations: [{ text: 'Nothing yet.' }] }
};

describe('themed', () => {
  it('takes colours from the theme and leaves the rest', () => {
    const layout = themed(
      { width: 900, height: 200, font: { size: 12 }, yaxis: { autorange: 'reversed' } },
      COLOURS
    );
    expect(layout).not.toHaveProperty('width');
    expect(layout['height']).toBe(200);
    expect(layout['font']).toMatchObject({ color: '#111', family: 'sans' });
    expect(layout['yaxis']).toMatchObject({ autorange: 'reversed', gridcolor: '#ccc' });
  });
  it('knows what is said where there is no data', () => {
    expect(emptyNote(FIGURE)).toBeNull();
    expect(emptyNote(EMPTY)).toBe('Nothing yet.');
  });
});

describe('Chart', () => {
  const library = { react: vi.fn(async () => {}), purge: vi.fn(), Plots: { resize: vi.fn() } };
  const load = vi.fn(async () => library as never);

  beforeEach(() => vi.clearAllMocks());

  it('does not load Plotly for nothing', async () => {
    const chart = new Chart('Bytes', load);
    await chart.show(EMPTY);
    expect(load).not.toHaveBeenCalled();
    expect(chart.node.textContent).toContain('Nothing yet.');
    chart.dispose();
    expect(library.purge).not.toHaveBeenCalled();
  });
  it('updates one plot in place and purges it', async () => {
    const chart = new Chart('Bytes', load);
    await chart.show(FIGURE);
    await chart.show(FIGURE);
    await chart.recolour();
    const nodes = new Set((library.react.mock.calls as unknown[][]).map(([node]) => node));
    expect([library.react.mock.calls.length, nodes.size]).toEqual([3, 1]);
    chart.dispose();
    chart.dispose();
    expect(library.purge).toHaveBeenCalledOnce();
  });
  it('draws nothing once it is disposed of', async () => {
    const chart = new Chart('Bytes', load);
    const shown = chart.show(FIGURE);
    chart.dispose();
    await shown;
    expect(library.react).not.toHaveBeenCalled();
  });
});
