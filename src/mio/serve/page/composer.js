/* Where messages are written: text, attachments by button, drop or paste, microphone, drawing pad, kinds of answer. */

import { announce, el, find, icon, iconButton, toast } from './dom.js';
import { KINDS, media, textOf } from './kinds.js';
import { partOf } from './media.js';
import * as mic from './mic.js';
import { THUMBS } from './parts.js';
import { options } from './settings.js';
import { sketch } from './sketch.js';

export class Composer {
  #tray = [];
  #from = null; // the message that is being edited
  #busy = false;

  /** `send(parts, from)` is called with what was written, `stop()` to end an answer. */
  constructor(settings, { send, stop }) {
    Object.assign(this, { settings, send, stop, prompt: find('prompt'), files: find('files') });
    this.files.accept = ['image/*', ...['audio', 'video'].flatMap((kind) => Object.keys(KINDS[kind].types))].join();
    this.#listen();
    this.#dropping();
    settings.addEventListener('change', () => this.#kinds());
    this.#kinds();
  }

  #listen() {
    const { prompt, files } = this;
    find('composer').addEventListener('submit', (event) => { event.preventDefault(); this.submit(); });
    prompt.addEventListener('input', () => this.#grow());
    prompt.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#busy) this.submit();
    });
    files.addEventListener('change', () => { this.attach(files.files).then(() => { files.value = ''; }); });
    find('attach').addEventListener('click', () => files.click());
    find('draw').addEventListener('click', () => this.draw());
    find('record').addEventListener('click', () => this.record());
    find('record').hidden = !mic.possible();
    find('stop').addEventListener('click', () => this.stop());
    find('edit-cancel').addEventListener('click', () => this.clear());
    find('voice-quick').addEventListener('change', ({ target }) => this.settings.set({ voice: target.value }));
    document.addEventListener('paste', ({ clipboardData }) => { if (clipboardData.files.length) this.attach(clipboardData.files); });
  }

  /** Files may be dropped anywhere on the page. */
  #dropping() {
    const veil = find('drop');
    const carries = ({ dataTransfer }) => dataTransfer?.types.includes('Files');
    addEventListener('dragover', (event) => { if (carries(event)) { event.preventDefault(); veil.hidden = false; } });
    addEventListener('dragleave', ({ relatedTarget }) => { if (!relatedTarget) veil.hidden = true; });
    addEventListener('drop', (event) => {
      veil.hidden = true;
      if (!carries(event)) return;
      event.preventDefault();
      this.attach(event.dataTransfer.files);
    });
  }

  async attach(files) {
    for (const file of [...files]) {
      try {
        this.add(await partOf(file));
      } catch (error) {
        toast(error.message);
      }
    }
  }

  add(part) {
    if (!part) return;
    this.#tray.push(part);
    this.#showTray();
    announce(`${part.name} is attached.`);
    this.prompt.focus();
  }

  async record() {
    try {
      this.add(await mic.record());
    } catch (error) {
      toast(error.name === 'NotAllowedError' ? 'This page may not use the microphone. Allow it in the browser.' : 'No microphone can be used.');
    }
    this.prompt.focus();
  }

  async draw() {
    this.add(await sketch());
    this.prompt.focus();
  }

  /** Puts a message back for changes; sending it replaces what came after. */
  edit(message) {
    this.write(textOf(message.parts), [...media(message.parts)]);
    this.#from = message;
    find('editing').hidden = false;
  }

  write(text, tray = []) {
    this.prompt.value = text;
    this.#tray = tray;
    this.#showTray();
    this.#grow();
    this.prompt.focus();
  }

  clear() {
    this.#from = null;
    find('editing').hidden = true;
    this.write('');
  }

  submit() {
    const text = this.prompt.value.trim();
    const parts = [...this.#tray, ...(text ? [{ kind: 'text', text }] : [])];
    if (!parts.length || this.#busy) return;
    const from = this.#from;
    this.clear();
    this.send(parts, from);
  }

  /** While an answer comes, the send button is a stop button. */
  set busy(busy) {
    this.#busy = busy;
    find('send').hidden = busy;
    find('stop').hidden = !busy;
  }

  #grow() {
    this.prompt.style.height = 'auto';
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight, 220)}px`;
  }

  #showTray() {
    const tray = find('tray');
    tray.hidden = !this.#tray.length;
    tray.replaceChildren(...this.#tray.map((part, at) => el('li', { class: part.kind },
      el('span', { class: 'thumb' }, THUMBS[part.kind](part)),
      el('span', { class: 'name' }, part.name),
      iconButton('close', `Remove ${part.name}`, () => { this.#tray.splice(at, 1); this.#showTray(); this.prompt.focus(); }, { class: 'round small' }))));
  }

  /** The kinds that may be in the answer, as far as the model has them; one at least stays on. */
  #kinds() {
    const { values, model } = this.settings;
    const offered = Object.keys(KINDS).filter((kind) => (model.modalities?.output ?? ['text']).includes(kind));
    const focused = document.activeElement?.dataset.kind;
    find('kinds').replaceChildren(...offered.map((kind) => el('button', {
      type: 'button', class: `kind ${kind}`, 'data-kind': kind, 'aria-label': KINDS[kind].label, title: KINDS[kind].label, 'aria-pressed': String(values.out.includes(kind)), onclick: () => this.#toggle(kind),
    }, icon(kind), el('span', {}, KINDS[kind].label))));
    find('order').replaceChildren(el('span', {}, values.order), iconButton('close', 'Any order', () => this.settings.set({ order: '' }), { class: 'round small' }));
    find('order').hidden = !values.order;
    if (focused) find('kinds').querySelector(`[data-kind=${focused}]`)?.focus();
    const quick = find('voice-quick');
    options(quick, [['', 'Any voice'], ...(model.voices ?? []).map((voice) => [voice, voice])]);
    quick.value = values.voice;
    quick.hidden = !values.out.includes('audio') || !model.voices?.length;
  }

  #toggle(kind) {
    const { out } = this.settings.values;
    const next = out.includes(kind) ? out.filter((other) => other !== kind) : [...out, kind];
    this.settings.set({ order: '', out: next.length ? Object.keys(KINDS).filter((each) => next.includes(each)) : out });
  }
}
