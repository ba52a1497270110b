/** Figures as people read them. */
import type { TranslationBundle } from '@jupyterlab/translation';

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** A size, as `112 MB`; unknown: a dash. */
export function bytes(size: number | null): string {
  if (size === null) {
    return '–';
  }
  let power = 0;
  while (size >= 999.5 && power < UNITS.length - 1) {
    size /= 1000;
    power += 1;
  }
  return `${power > 0 && size < 9.95 ? size.toFixed(1) : Math.round(size)} ${UNITS[power]}`;
}

/** A count, as `950`, `12.3k`, `1.2M`; unknown: a dash. */
export function count(number: number | null): string {
  if (number === null) {
    return '–';
  }
  if (number < 1000) {
    return String(number);
  }
  const [value, unit] = number < 999_500 ? [number / 1e3, 'k'] : [number / 1e6, 'M'];
  return `${value < 99.95 ? value.toFixed(1).replace(/\.0$/, '') : Math.round(value)}${unit}`;
}

/** How long ago a time was, as `3 h`. */
export function age(time: string, trans: TranslationBundle, now = Date.now()): string {
  const seconds = Math.max((now - Date.parse(time)) / 1000, 0);
  if (seconds < 60) {
    return trans.__('now');
  }
  const [amount, unit] =
    seconds < 3600
      ? [seconds / 60, trans.__('min')]
      : seconds < 86_400
        ? [seconds / 3600, trans.__('h')]
        : seconds < 365 * 86_400
          ? [seconds / 86_400, trans.__('d')]
          : [seconds / (365 * 86_400), trans.__('y')];
  return `${Math.floor(amount)} ${unit}`;
}

/** A time as the reader's clock and calendar have it. */
export function moment(time: string): string {
  return new Date(time).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}
