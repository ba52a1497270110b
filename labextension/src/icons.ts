/** Our own icons; they take the theme's colours by Lab's classes. */
import { LabIcon } from '@jupyterlab/ui-components';

const svg = (content: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16">${content}</svg>`;

/** A window with its layers: the context windows. */
export const windowsIcon = new LabIcon({
  name: 'cwm:windows',
  svgstr: svg(
    '<g class="jp-icon3" fill="#616161"><path d="M2.5 2h11A1.5 1.5 0 0 1 15 3.500v9a1.5 1.5 0 0 ' +
      '1-1.5 1.500h-11A1.5 1.5 0 0 1 1 12.500v-9A1.5 1.5 0 0 1 2.5 2zm0 1.200a.3.3 0 0 0-.3.3v9c0 ' +
      '.17.13.3.3.3h11a.3.3 0 0 0 .3-.3v-9a.3.3 0 0 0-.3-.3z"/><path d="M3.6 4.800h8.800v1.300H3.600z' +
      'M3.6 7.350h6.400v1.300H3.600zM3.6 9.900h3.600v1.300H3.600z"/></g>'
  )
});

/** A snowflake: freeze. */
export const freezeIcon = new LabIcon({
  name: 'cwm:freeze',
  svgstr: svg(
    '<g class="jp-icon3-stroke cwm-stroke" fill="none" stroke="#616161" stroke-width="1.2" ' +
      'stroke-linecap="round" stroke-linejoin="round"><path d="M8 1.500v13M2.37 4.750l11.26 6.500M' +
      '2.37 11.250l11.26-6.5"/><path d="M6.2 2.6 8 4.200l1.8-1.600M6.2 13.4 8 11.800l1.8 ' +
      '1.600M2.42 7.1 4.7 6.300l-.45-2.360M11.75 12.060l-.45-2.36 2.28-.8M13.58 7.1 ' +
      '11.3 6.300l.45-2.360M4.25 12.060l.45-2.36-2.28-.8"/></g>'
  )
});

/** A pin: kept whatever its time to live says. */
export const pinIcon = new LabIcon({
  name: 'cwm:pin',
  svgstr: svg(
    '<path class="jp-icon3" fill="#616161" d="M5 1.500h6v1.200l-.9.7.5 3.8 1.9 1.700v1.300H8.650v4.300L8 ' +
      '15.500l-.65-1v-4.300H3.500V8.900l1.9-1.7.5-3.8-.9-.7z"/>'
  )
});
