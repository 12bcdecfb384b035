/* A conversation: questions are sent, answers stream in, and both are kept. */

import { advice, chat, passing, requestOf } from './api.js';
import { announce, toast } from './dom.js';
import { summary, textOf } from './kinds.js';
import { MessageView } from './message.js';
import { start } from './player.js';
import { Answer } from './stream.js';

const TRIES = 4; // of a request that a busy server turned away

export const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export class Talk extends EventTarget {
  #stopper = null;
  #views = new Map();
  #pinned = true; // the newest words stay in sight until a person scrolls away
  #top = 0;

  /** `does`: what buttons of messages do beyond this conversation: open, edit, settings. */
  constructor({ log, scroll, settings, store, does }) {
    super();
    Object.assign(this, { log, scroll, settings, store });
    this.does = {
      ...does, copy: ({ parts }) => copy(textOf(parts)), again: (message) => this.again(message), fresh: () => this.open(),
    };
    scroll.addEventListener('scroll', () => this.#scrolled());
    new ResizeObserver(() => this.#follow()).observe(log); // pictures get their height after they are added
    this.open();
  }

  get busy() {
    return this.#stopper !== null;
  }

  /** Shows a conversation of the history, or an empty one. */
  open(chat = { id: unique(), title: '', updated: 0, messages: [] }) {
    this.stop();
    this.chat = chat;
    this.#views.clear();
    this.log.replaceChildren();
    chat.messages.forEach((message) => this.#show(message));
    this.#pinned = true;
    this.#follow();
    this.#changed();
  }

  /** A question, and the answer to it; with `from`, everything since that message is forgotten first. */
  async send(parts, from = null) {
    if (from) this.#forget(from);
    this.chat.title ||= textOf(parts).trim().slice(0, 80) || summary(parts);
    this.#add({ role: 'user', parts });
    await this.#answer();
  }

  /** The same question once more; what came after it is forgotten. */
  async again(message) {
    this.stop();
    this.#forget(message);
    await this.#answer();
  }

  stop() {
    this.#stopper?.abort();
  }

  /** Leaves a conversation that is deleted: an answer that still comes must not bring it back. */
  discard() {
    this.chat.gone = true;
    this.open();
  }

  #forget(message) {
    for (const gone of this.chat.messages.splice(this.chat.messages.indexOf(message))) {
      this.#views.get(gone)?.node.remove();
      this.#views.delete(gone);
    }
  }

  #add(message) {
    this.chat.messages.push(message);
    this.#pinned = true;
    this.#show(message);
    this.#keep();
  }

  #show(message) {
    const view = new MessageView(message, this.does);
    this.#views.set(message, view);
    this.log.append(view.node);
    this.#follow();
  }

  async #answer() {
    const stopper = new AbortController();
    const { chat } = this;
    const asked = [...chat.messages];
    const message = { role: 'assistant', parts: [], state: 'coming', model: this.settings.values.model };
    this.#stopper = stopper;
    this.#add(message);
    this.#changed();
    const begun = performance.now();
    try {
      await this.#patiently(message, asked, stopper.signal);
      message.state = 'done';
    } catch (error) {
      failed(message, error);
    }
    message.seconds = (performance.now() - begun) / 1000;
    message.parts = message.parts.filter((part) => !part.pieces);
    this.#finish(message, stopper, chat);
  }

  /** A busy server is asked again after the time it names. */
  async #patiently(message, asked, signal) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#stream(message, asked, signal);
      } catch (error) {
        if (!passing(error) || tries === TRIES) throw error;
        await this.#views.get(message).wait(passing(error), error.retryAfter || 2 ** tries, signal);
      }
    }
  }

  async #stream(message, asked, signal) {
    const answer = new Answer(textOf(asked.at(-1).parts).trim());
    message.parts = answer.parts;
    const request = await requestOf(asked, this.settings.values);
    for await (const event of chat(request, this.settings.key, signal)) {
      answer.take(event);
      Object.assign(message, { usage: answer.usage, model: answer.model, faults: answer.faults, cut: answer.finish === 'length' });
      this.#soon(message);
    }
  }

  /** At most one drawing a frame, however fast the tokens come. */
  #soon(message) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.#views.get(message)?.show();
      this.#follow();
    });
  }

  #finish(message, stopper, chat) {
    if (this.#stopper === stopper) this.#stopper = null;
    this.#keep(chat);
    const view = this.#views.get(message);
    if (!view) return; // another conversation is open by now
    view.show();
    this.#follow();
    announce(message.trouble ? `No answer: ${message.trouble.text}` : `Answer complete: ${summary(message.parts) || 'empty'}.`);
    const sound = this.settings.values.speak && view.node.querySelector('audio');
    if (sound) start(sound);
    this.#changed();
  }

  #follow() {
    if (this.#pinned) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  /** Only a way up is a person's: what grows below the end must not count as scrolled away. */
  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    this.#pinned = scrollHeight - scrollTop - clientHeight < 60 || (this.#pinned && scrollTop >= this.#top);
    this.#top = scrollTop;
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  async #keep(chat = this.chat) {
    if (chat.gone) return;
    const messages = chat.messages.map((message) => (
      { ...message, parts: message.parts.filter((part) => !part.pieces), state: message.state === 'coming' ? 'stopped' : message.state }));
    chat.updated = Date.now();
    await this.store.put({ ...chat, messages }).catch(() => toast('This browser cannot keep the conversation.'));
    this.dispatchEvent(new Event('kept'));
  }
}

function failed(message, error) {
  message.state = error.name === 'AbortError' ? 'stopped' : 'failed';
  if (message.state === 'stopped') return;
  const known = error.code || error.status;
  if (!known) console.error(error);
  message.trouble = { text: known ? error.message : 'This page failed to show the answer.', advice: advice(error), status: error.status };
}

async function copy(text) {
  await navigator.clipboard.writeText(text.trim());
  toast('Copied.', null, 2);
}
