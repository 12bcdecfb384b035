/* Conversations in this browser, media as blobs; nothing is kept on the server. */

import { KINDS } from './kinds.js';
import { blobOf, dataUrl } from './media.js';

const CHATS = 'chats';

function wait(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export class Store {
  #database;

  static async open() {
    const store = new Store();
    const request = indexedDB.open('mio', 1);
    request.onupgradeneeded = () => request.result.createObjectStore(CHATS, { keyPath: 'id' });
    store.#database = await wait(request);
    return store;
  }

  #chats(mode = 'readonly') {
    return this.#database.transaction(CHATS, mode).objectStore(CHATS);
  }

  /** Newest first. */
  async all() {
    return (await wait(this.#chats().getAll())).sort((a, b) => b.updated - a.updated);
  }

  get = (id) => wait(this.#chats().get(id));
  put = (chat) => wait(this.#chats('readwrite').put(chat));
  remove = (id) => wait(this.#chats('readwrite').delete(id));
  clear = () => wait(this.#chats('readwrite').clear());

  /** Everything as one JSON file. */
  async written() {
    const chats = await Promise.all((await this.all()).map((chat) => mapParts(chat, async ({ blob, ...part }) => (
      blob ? { ...part, data: await dataUrl(blob) } : part))));
    return new Blob([JSON.stringify({ format: 'mio-chats', version: 1, chats })], { type: 'application/json' });
  }

  /** Adds what such a file holds; returns how many conversations. */
  async read(file) {
    const { format, chats } = JSON.parse(await file.text());
    if (format !== 'mio-chats') throw new Error('This file holds no conversations of this page.');
    const whole = await Promise.all(chats.map((chat) => mapParts(chat, async ({ data, ...part }) => {
      if (!(part.kind in KINDS)) throw new Error('This file is damaged.');
      return data ? { ...part, blob: blobOf(data, part.kind) } : part;
    })));
    for (const chat of whole) await this.put(chat);
    return whole.length;
  }
}

async function mapParts(chat, change) {
  const messages = chat.messages.map(async (message) => ({ ...message, parts: await Promise.all(message.parts.map(change)) }));
  return { ...chat, messages: await Promise.all(messages) };
}
