/* Media of the conversation: all as a gallery, each one large, one after the other. */

import { el, find } from './dom.js';
import { KINDS, media } from './kinds.js';
import { download } from './media.js';
import { LARGE, THUMBS, badge, described, fileName } from './parts.js';

export class Viewer {
  #all = [];
  #at = 0;

  constructor(talk) {
    Object.assign(this, { talk, dialog: find('viewer'), gallery: find('gallery') });
    find('viewer-previous').addEventListener('click', () => this.#go(-1));
    find('viewer-next').addEventListener('click', () => this.#go(1));
    find('viewer-save').addEventListener('click', () => download(this.#part.blob, fileName(this.#part)));
    this.dialog.addEventListener('keydown', ({ key, target }) => {
      if (target.type === 'range') return;
      if (key === 'ArrowLeft') this.#go(-1);
      if (key === 'ArrowRight') this.#go(1);
    });
    this.dialog.addEventListener('click', ({ target }) => { if (target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener('close', () => find('viewer-stage').replaceChildren());
  }

  get #part() {
    return this.#all[this.#at];
  }

  #collect() {
    this.#all = this.talk.chat.messages.flatMap(({ parts }) => media(parts));
  }

  open(part) {
    this.#collect();
    this.#at = this.#all.indexOf(part);
    this.#show();
    if (!this.dialog.open) this.dialog.showModal();
  }

  #go(step) {
    this.#at = (this.#at + step + this.#all.length) % this.#all.length;
    this.#show();
  }

  #show() {
    find('viewer-stage').replaceChildren(LARGE[this.#part.kind](this.#part));
    find('viewer-caption').replaceChildren(...(this.#part.made ? [badge()] : []), el('span', {}, this.#part.made ? this.#part.asked ?? '' : this.#part.name));
    find('viewer-count').textContent = `${this.#at + 1} of ${this.#all.length}`;
    for (const id of ['viewer-previous', 'viewer-next']) find(id).hidden = this.#all.length < 2;
  }

  openGallery() {
    this.#collect();
    find('gallery-items').replaceChildren(...this.#all.map((part) => el('li', {},
      el('button', { type: 'button', class: `tile ${part.kind}`, 'aria-label': `Open ${described(part)}`, onclick: () => this.open(part) },
        THUMBS[part.kind](part), el('span', { class: 'tile-name' }, part.made ? badge() : KINDS[part.kind].label)))));
    find('gallery-empty').hidden = this.#all.length > 0;
    this.gallery.showModal();
  }
}
