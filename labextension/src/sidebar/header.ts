/** Search, order and tags, above the list. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import type { Sort, WindowsModel } from '../model/windows';

/** The controls of the model's filter. */
export class Header extends Widget {
  constructor(
    private readonly model: WindowsModel,
    private readonly trans: TranslationBundle
  ) {
    super();
    this.addClass('cwm-Header');
    this.search = this.makeSearch();
    const row = document.createElement('div');
    row.className = 'cwm-Header-row';
    row.append(this.makeSort(), this.direction, this.makeTagChoice());
    this.chips.className = 'cwm-Header-chips';
    this.node.append(this.search, row, this.chips);
    this.direction.type = 'button';
    this.direction.className = 'cwm-Button';
    this.direction.onclick = () => model.change({ descending: !model.filter.descending });
    model.changed.connect(this.refresh, this);
    this.refresh();
  }

  dispose(): void {
    this.model.changed.disconnect(this.refresh, this);
    super.dispose();
  }

  /** Leave nothing out. */
  clear(): void {
    this.search.value = '';
    this.model.change({ text: '', tags: [] });
    this.refresh();
    this.search.focus();
  }

  focus(): void {
    this.search.focus();
  }

  private makeSearch(): HTMLInputElement {
    const input = document.createElement('input');
    input.type = 'search';
    input.className = 'cwm-Search';
    input.placeholder = this.trans.__('Search names, notes and tags');
    input.setAttribute('aria-label', this.trans.__('Search windows'));
    input.oninput = () => this.model.change({ text: input.value.trim() });
    return input;
  }

  private makeSort(): HTMLSelectElement {
    const { trans } = this;
    const select = document.createElement('select');
    select.className = 'cwm-Select';
    select.setAttribute('aria-label', trans.__('Sort by'));
    const sorts: [Sort, string][] = [
      ['created', trans.__('Age')],
      ['used', trans.__('Last use')],
      ['name', trans.__('Name')],
      ['bytes', trans.__('Size')],
      ['tokens', trans.__('Tokens')]
    ];
    select.append(...sorts.map(([value, label]) => new Option(label, value)));
    select.onchange = () => {
      const sort = select.value as Sort;
      this.model.change({ sort, descending: sort !== 'name' });
      this.refresh();
    };
    return select;
  }

  private makeTagChoice(): HTMLSelectElement {
    this.tags.className = 'cwm-Select';
    this.tags.setAttribute('aria-label', this.trans.__('Filter by tag'));
    this.tags.onchange = () => {
      const { tags } = this.model.filter;
      if (this.tags.value !== '') {
        this.model.change({ tags: [...tags, this.tags.value] });
      }
      this.refresh();
    };
    return this.tags;
  }

  private refresh(): void {
    const { trans } = this;
    const { descending, tags } = this.model.filter;
    this.direction.textContent = descending ? '↓' : '↑';
    this.direction.title = descending
      ? trans.__('Largest or newest first')
      : trans.__('Smallest or oldest first');
    this.direction.setAttribute('aria-label', this.direction.title);
    const others = this.model.tags.filter(tag => !tags.includes(tag));
    const listed = others.join(' ');
    if (listed !== this.listed) {
      this.listed = listed;
      this.tags.replaceChildren(
        new Option(trans.__('Tag'), ''),
        ...others.map(tag => new Option(tag, tag))
      );
    }
    this.tags.value = '';
    this.tags.hidden = others.length === 0;
    this.chips.replaceChildren(...tags.map(tag => this.chip(tag)));
    this.chips.hidden = tags.length === 0;
  }

  private chip(tag: string): HTMLElement {
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.className = 'cwm-Tag cwm-mod-chosen';
    chip.textContent = `${tag} ×`;
    chip.setAttribute('aria-label', this.trans.__('No longer filter by %1', tag));
    chip.onclick = () => {
      this.model.change({ tags: this.model.filter.tags.filter(one => one !== tag) });
      this.refresh();
    };
    return chip;
  }

  private readonly search: HTMLInputElement;
  private readonly direction = document.createElement('button');
  private readonly tags = document.createElement('select');
  private readonly chips = document.createElement('div');
  private listed: string | null = null;
}
