/* Earlier conversations: search, open, rename, delete with a way back, files of them all. */

import { el, find, icon, iconButton, toast } from './dom.js';
import { textOf } from './kinds.js';
import { download } from './media.js';

const DAY = 86400000;
const AGES = [['Today', 1], ['Yesterday', 2], ['Last seven days', 8], ['Earlier', Infinity]];

const midnight = () => new Date().setHours(24, 0, 0, 0);
const age = ({ updated }) => AGES.find(([, days]) => midnight() - updated <= days * DAY)[0];
const words = (chat) => [chat.title, ...chat.messages.map(({ parts }) => textOf(parts))].join(' ').toLowerCase();

export class Side {
  constructor(store, talk) {
    Object.assign(this, { store, talk, wide: matchMedia('(min-width: 52rem)') });
    find('search').addEventListener('input', () => this.show());
    find('new').addEventListener('click', () => this.fresh());
    find('menu').addEventListener('click', () => this.slide(true));
    find('veil').addEventListener('click', () => this.slide(false));
    addEventListener('keydown', ({ key }) => { if (key === 'Escape') this.slide(false); });
    this.wide.addEventListener('change', () => this.slide(false));
    talk.addEventListener('kept', () => this.show());
    talk.addEventListener('change', () => this.#mark());
    this.slide(false);
  }

  /** On a narrow screen the list slides in over the page. */
  slide(open) {
    document.body.classList.toggle('side-open', open && !this.wide.matches);
    find('side').inert = !open && !this.wide.matches;
    find('menu').setAttribute('aria-expanded', String(open));
    if (!this.wide.matches && open) requestAnimationFrame(() => find('search').focus()); // it cannot be focused unseen
  }

  fresh() {
    this.talk.open();
    this.slide(false);
    find('prompt').focus();
  }

  async show() {
    const wanted = find('search').value.trim().toLowerCase();
    const chats = (await this.store.all()).filter((chat) => !wanted || words(chat).includes(wanted));
    const groups = AGES.map(([name]) => [name, chats.filter((chat) => age(chat) === name)]).filter(([, found]) => found.length);
    find('chats').replaceChildren(...groups.flatMap(([name, found]) => [
      el('h2', {}, name), el('ul', {}, ...found.map((chat) => this.#row(chat)))]));
    if (!chats.length) find('chats').append(el('p', { class: 'note' }, wanted ? 'Nothing found.' : 'Your conversations stay in this browser.'));
    this.#mark();
  }

  #row(chat) {
    const open = () => { this.talk.open(chat); this.slide(false); };
    const small = { class: 'round small' };
    return el('li', { 'data-chat': chat.id },
      el('button', { type: 'button', class: 'chat', onclick: open }, icon('chat'), el('span', {}, chat.title)),
      iconButton('edit', `Rename ${chat.title}`, ({ target }) => this.#rename(chat, target.closest('li')), small),
      iconButton('trash', `Delete ${chat.title}`, () => this.#remove(chat), small));
  }

  #mark() {
    for (const row of find('chats').querySelectorAll('li')) {
      const current = row.dataset.chat === this.talk.chat.id;
      row.firstChild.setAttribute('aria-current', String(current));
    }
  }

  #rename(chat, row) {
    const input = el('input', { value: chat.title, 'aria-label': 'Name of the conversation', maxlength: 80 });
    const end = async (keep) => {
      input.onblur = null;
      if (keep && input.value.trim()) {
        chat.title = input.value.trim();
        if (this.talk.chat.id === chat.id) this.talk.chat.title = chat.title;
        await this.store.put(chat);
      }
      this.show();
    };
    input.onblur = () => end(true);
    input.onkeydown = (event) => {
      if (event.key === 'Enter') end(true);
      if (event.key === 'Escape') { event.stopPropagation(); end(false); }
    };
    row.replaceChildren(input);
    input.select();
  }

  async #remove(chat) {
    await this.store.remove(chat.id);
    if (this.talk.chat.id === chat.id) this.talk.discard();
    await this.show();
    toast(`“${chat.title}” is deleted.`, { label: 'Undo', run: async () => { await this.store.put(chat); this.show(); } });
  }

  async export() {
    download(await this.store.written(), `mio-chats-${new Date().toISOString().slice(0, 10)}.json`);
  }

  async import(file) {
    try {
      const count = await this.store.read(file);
      toast(`${count} ${count === 1 ? 'conversation' : 'conversations'} added.`);
    } catch (error) {
      toast(error instanceof SyntaxError ? 'This file is not JSON.' : error.message);
    }
    this.show();
  }

  async clear() {
    this.talk.discard();
    await this.store.clear();
    this.show();
  }
}
