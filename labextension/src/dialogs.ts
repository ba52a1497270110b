/** Forms in Lab's dialogs: what is wrong is said beside the field, and what was typed stays. */
import { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { CWMError, told } from './api/errors';
import { said } from './dom';

/** A field of a form. */
export interface Field {
  /** As the server's errors name it. */
  key: string;
  label: string;
  value?: string;
  placeholder?: string;
  help?: string;
  lines?: number;
  check?: (value: string) => string | null;
}

export type Values = Record<string, string>;

/** The fields one below the other. */
class Form extends Widget implements Dialog.IBodyWidget<Values> {
  constructor(
    readonly fields: readonly Field[],
    values: Values,
    problems: Values
  ) {
    super();
    this.addClass('cwm-Form');
    for (const field of fields) {
      this.node.append(this.row(field, values[field.key] ?? '', problems[field.key]));
    }
    if (problems['']) {
      this.node.append(said('span', 'cwm-Form-problem', problems[''], 'alert'));
    }
  }

  getValue(): Values {
    return Object.fromEntries([...this._inputs].map(([key, input]) => [key, input.value]));
  }

  private row(field: Field, value: string, problem?: string): HTMLElement {
    const label = document.createElement('label');
    const name = document.createElement('span');
    name.textContent = field.label;
    const input = document.createElement(field.lines ? 'textarea' : 'input');
    input.className = 'jp-mod-styled';
    input.name = field.key;
    input.value = value;
    input.placeholder = field.placeholder ?? '';
    input.spellcheck = field.lines !== undefined;
    if (input instanceof HTMLTextAreaElement) {
      input.rows = field.lines!;
    } else {
      input.autocomplete = 'off';
    }
    label.append(name, input);
    if (field.help) {
      label.append(said('span', 'cwm-Form-help', field.help));
    }
    if (problem) {
      input.setAttribute('aria-invalid', 'true');
      label.append(said('span', 'cwm-Form-problem', problem, 'alert'));
    }
    this._inputs.set(field.key, input);
    return label;
  }

  private readonly _inputs = new Map<string, HTMLInputElement | HTMLTextAreaElement>();
}

/**
 * Ask for values until `submit` takes them, or the user gives up (null).
 *
 * A CWMError of `submit` that names a field is shown at that field, any other one below all.
 */
export async function ask<T>(
  trans: TranslationBundle,
  title: string,
  accept: string,
  fields: readonly Field[],
  submit: (values: Values) => Promise<T>
): Promise<T | null> {
  let values: Values = Object.fromEntries(fields.map(field => [field.key, field.value ?? '']));
  let problems: Values = {};
  for (;;) {
    const wrong = Object.keys(problems).filter(key => key !== '');
    const dialog = new Dialog<Values>({
      title,
      body: new Form(fields, values, problems),
      buttons: [
        Dialog.cancelButton({ label: trans.__('Cancel') }),
        Dialog.okButton({ label: accept })
      ],
      focusNodeSelector: `[name="${wrong[0] ?? fields[0].key}"]`
    });
    const result = await dialog.launch();
    if (!result.button.accept || result.value === null) {
      return null;
    }
    values = result.value;
    problems = {};
    for (const field of fields) {
      const problem = field.check?.(values[field.key]);
      if (problem) {
        problems[field.key] = problem;
      }
    }
    if (Object.keys(problems).length > 0) {
      continue;
    }
    try {
      return await submit(values);
    } catch (error) {
      const field = error instanceof CWMError ? error.field : null;
      const there = fields.some(one => one.key === field);
      problems = { [there ? field! : '']: told(error) };
    }
  }
}
