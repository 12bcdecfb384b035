/* How to answer and how to look, kept in this browser; the API key only until its window closes. */

import { el, find } from './dom.js';

const NAME = 'mio.settings';
const KEY = 'mio.key';
const DEFAULTS = {
  model: '', out: ['text'], order: '', voice: '', temperature: null, seed: null, tokens: null, system: '', memory: true, speak: false,
  theme: 'system',
};

/** What a field of the form means, by its type. */
const VALUE = {
  checkbox: (input) => input.checked,
  number: (input) => (input.value === '' || !input.validity.valid ? null : Number(input.value)),
};
const value = (input) => (VALUE[input.type] ?? (() => input.value))(input);

export class Settings extends EventTarget {
  values = { ...DEFAULTS, ...JSON.parse(localStorage.getItem(NAME) ?? '{}') };
  models = [];

  get key() {
    return sessionStorage.getItem(KEY) ?? '';
  }

  /** The chosen model's row in /v1/models; empty before that is known. */
  get model() {
    return this.models.find(({ id }) => id === this.values.model) ?? {};
  }

  set(change) {
    Object.assign(this.values, change);
    localStorage.setItem(NAME, JSON.stringify(this.values));
    this.show();
    this.dispatchEvent(new Event('change'));
  }

  /** What the server can do decides what there is to choose. */
  offer(models) {
    this.models = models;
    const model = this.model.id ?? models[0].id;
    const row = models.find(({ id }) => id === model);
    const out = this.values.out.filter((kind) => (row.modalities?.output ?? ['text']).includes(kind));
    const voice = (row.voices ?? []).includes(this.values.voice) ? this.values.voice : '';
    this.set({ model, out: out.length ? out : ['text'], voice });
  }

  bind(form) {
    form.addEventListener('change', ({ target }) => {
      if (target.name === 'key') sessionStorage.setItem(KEY, target.value);
      else if (target.name === 'model') this.set({ model: target.value }), this.offer(this.models);
      else this.set({ [target.name]: value(target) });
      if (target.name === 'key') this.dispatchEvent(new Event('key'));
    });
    this.form = form;
    this.show();
  }

  show() {
    document.documentElement.dataset.theme = this.values.theme;
    if (!this.form) return;
    options(this.form.elements.model, this.models.map(({ id }) => [id, id]));
    options(this.form.elements.voice, [['', 'As the model likes'], ...(this.model.voices ?? []).map((voice) => [voice, voice])]);
    for (const input of this.form.elements) {
      if (!(input.name in this.values)) continue;
      if (input.type === 'checkbox') input.checked = this.values[input.name];
      else if (input.type === 'radio') input.checked = input.value === this.values[input.name];
      else input.value = this.values[input.name] ?? '';
    }
    find('key').value = this.key;
  }
}

export function options(select, rows) {
  select.replaceChildren(...rows.map(([value, label]) => el('option', { value }, label)));
}
