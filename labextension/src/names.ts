/** Names of windows: what is plainly wrong is said before the server is asked. */
import type { TranslationBundle } from '@jupyterlab/translation';

const MAX_LENGTH = 128;
const MAX_TAG_LENGTH = 64;
const REFUSED = /[/\\:*?"'<>|@%$`;&{}]|[\p{Zl}\p{Zp}\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}]|(?! )\p{Zs}/u;

/** Why a name may not be one; null: it may, as far as can be told here. */
export function nameProblem(name: string, trans: TranslationBundle): string | null {
  return problem(name.normalize('NFC'), MAX_LENGTH, trans);
}

/** As `nameProblem`, of a tag. */
export function tagProblem(tag: string, trans: TranslationBundle): string | null {
  return problem(tag.normalize('NFC'), MAX_TAG_LENGTH, trans);
}

function problem(text: string, most: number, trans: TranslationBundle): string | null {
  if (text === '') {
    return trans.__('A name is needed.');
  }
  const characters = [...text];
  if (characters.length > most) {
    return trans.__('At most %1 characters are allowed; these are %2.', most, characters.length);
  }
  const refused = REFUSED.exec(text);
  if (refused) {
    return trans.__('%1 is not allowed here.', JSON.stringify(refused[0]));
  }
  if (/^[ .\-~]/.test(text)) {
    return trans.__('It cannot begin with %1.', JSON.stringify(text[0]));
  }
  if (/[ .]$/.test(text)) {
    return trans.__('It cannot end with %1.', JSON.stringify(text.at(-1)));
  }
  return null;
}

/** The tags in what was typed: separated by commas or spaces, each once. */
export function tagsIn(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter(tag => tag !== ''))];
}

/** `%thaw` of a window; names have neither quotes nor backslashes, so quoting is simple. */
export function thawLine(name: string): string {
  return /^[\w.+=@^~-]+$/.test(name) ? `%thaw ${name}` : `%thaw "${name}"`;
}
