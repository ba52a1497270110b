/** What is said of windows in more than one place. */
import type { Window } from './api/types';

/** What a window is found by: its name, or `NAME@vN` where a newer version has that. */
export function knownAs(window: Window): string {
  return window.superseded ? `${window.name}@v${window.version}` : window.name;
}
