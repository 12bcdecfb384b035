/* One message on the page: its parts, what can be done with it, what went wrong. */

import { el, iconButton } from './dom.js';
import { textOf } from './kinds.js';
import { VIEWS } from './parts.js';

/** `does`: open(part), copy, edit, again, retry, settings, fresh -- what the buttons do with the message. */
export class MessageView {
  #shown = []; // [part, as it was, node]

  constructor(message, does) {
    Object.assign(this, { message, does });
    this.body = el('div', { class: 'parts' });
    this.foot = el('footer', {});
    const who = message.role === 'user' ? 'You' : message.model || 'Answer';
    const head = message.role === 'user'
      ? el('h2', { class: 'unseen' }, who)
      : el('h2', { class: 'who' }, el('span', { class: 'mark', 'aria-hidden': 'true' }), el('span', { class: 'model' }, who), el('span', { class: 'tag' }, 'AI'));
    this.node = el('article', { class: message.role, tabindex: '-1' }, head, this.body, this.foot);
    this.show();
  }

  /** Brings the page up to the message; parts that did not change keep their elements. */
  show() {
    const { message } = this;
    this.node.setAttribute('aria-busy', String(message.state === 'coming'));
    this.node.querySelector('.model')?.replaceChildren(message.model || 'Answer');
    message.parts.forEach((part, at) => this.#part(part, at));
    this.#shown.splice(message.parts.length).forEach(([, , node]) => node.remove());
    this.body.classList.toggle('waiting', message.state === 'coming' && !message.parts.length);
    this.foot.replaceChildren(...this.#footer());
  }

  #part(part, at) {
    const state = part.blob ?? part.text ?? '';
    const [old, was, node] = this.#shown[at] ?? [];
    if (old === part && was === state) return;
    const fresh = VIEWS[part.kind](part, this.does.open);
    if (node) node.replaceWith(fresh);
    else this.body.append(fresh);
    this.#shown[at] = [part, state, fresh];
  }

  #footer() {
    const { message, does } = this;
    if (message.state === 'coming') return [];
    const trouble = message.trouble ? [this.#trouble(message.trouble)] : [];
    const note = notes(message).map((text) => el('span', { class: 'note' }, text));
    return [...trouble, el('div', { class: 'actions' }, ...this.#actions(does), ...note)];
  }

  #actions({ copy, again, edit }) {
    const { message } = this;
    const small = { class: 'round small' };
    return [
      textOf(message.parts) && iconButton('copy', 'Copy text', () => copy(message), small),
      message.role === 'assistant' && iconButton('again', 'Answer again', () => again(message), small),
      message.role === 'user' && iconButton('edit', 'Edit and send again', () => edit(message), small),
    ].filter(Boolean);
  }

  #trouble({ text, advice, status }) {
    const { does, message } = this;
    const button = (label, run) => el('button', { type: 'button', class: 'pill', onclick: run }, label);
    const more = {
      401: button('Open settings', does.settings),
      400: button('New chat', does.fresh),
    };
    return el('div', { class: 'trouble', role: 'alert' },
      el('p', {}, el('strong', {}, text), advice ? ` ${advice}` : ''),
      el('div', { class: 'actions' }, button('Try again', () => does.again(message)), more[status] ?? null));
  }

  /** Says that the server is busy and counts down; resolves when it is time, or when a person says so. */
  async wait(text, seconds, signal) {
    const left = el('span', {}, '');
    const now = el('button', { type: 'button', class: 'pill' }, 'Try now');
    this.foot.replaceChildren(el('div', { class: 'trouble calm', role: 'status' }, el('p', {}, el('strong', {}, text), ' ', left), now));
    const until = Date.now() + seconds * 1000;
    const count = () => { left.textContent = `Trying again in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s.`; };
    count();
    const clock = setInterval(count, 250);
    await new Promise((resolve) => {
      setTimeout(resolve, seconds * 1000);
      now.addEventListener('click', resolve);
      signal.addEventListener('abort', resolve);
    });
    clearInterval(clock);
    this.show();
    signal.throwIfAborted();
  }
}

/** In few words: how the answer ended and what it took. */
function notes({ state, cut, faults = [], seconds, usage }) {
  const tokens = usage?.completion_tokens;
  const spent = [tokens && `${tokens} tokens`, seconds && `${seconds.toFixed(1)} s`].filter(Boolean).join(' · ');
  const ended = state === 'stopped' ? 'Stopped' : cut && 'Cut at its most tokens';
  return [ended, ...faults.map((fault) => `A part is missing: ${fault}`), spent].filter(Boolean);
}
