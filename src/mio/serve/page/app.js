/* Puts the page together. */

import { advice, models } from './api.js';
import { Composer } from './composer.js';
import { el, find, toast } from './dom.js';
import { media } from './kinds.js';
import { Settings } from './settings.js';
import { Side } from './side.js';
import { Store } from './store.js';
import { Talk } from './talk.js';
import { Viewer } from './viewer.js';
import { welcome } from './welcome.js';

const settings = new Settings();
const store = await Store.open();
const talk = new Talk({
  log: find('log'), scroll: find('scroll'), settings, store,
  does: { open: (part) => viewer.open(part), edit: (message) => composer.edit(message), settings: () => find('settings').showModal() },
});
const viewer = new Viewer(talk);
const composer = new Composer(settings, { send: (parts, from) => talk.send(parts, from), stop: () => talk.stop() });
const side = new Side(store, talk);

function show() {
  const { messages, title, id } = talk.chat;
  composer.busy = talk.busy;
  document.body.classList.toggle('empty', !messages.length);
  find('title').textContent = title || 'New chat';
  find('gallery-open').hidden = !messages.some(({ parts }) => media(parts).length);
  document.title = title ? `${title} · mio` : 'mio';
  history.replaceState(null, '', messages.length ? `#${id}` : location.pathname);
}

/** Asks the server what it offers; where that fails, says why and offers to ask again. */
async function connect() {
  const banner = find('banner');
  try {
    settings.offer(await models(settings.key));
    banner.hidden = true;
  } catch (error) {
    const again = error.status === 401
      ? el('button', { type: 'button', class: 'pill', onclick: () => find('settings').showModal() }, 'Enter the key')
      : el('button', { type: 'button', class: 'pill', onclick: connect }, 'Try again');
    banner.replaceChildren(el('span', {}, el('strong', {}, error.message), ` ${advice(error)}`), again);
    banner.hidden = false;
  }
}

/** By key with Ctrl or Cmd; with Shift as well where the key is written large. */
const SHORTCUTS = {
  k: () => { side.slide(true); find('search').focus(); },
  O: () => side.fresh(),
  U: () => find('attach').click(),
  ',': () => find('settings').showModal(),
};

addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && talk.busy && !document.querySelector('dialog[open]')) talk.stop();
  const run = (event.ctrlKey || event.metaKey) && SHORTCUTS[event.shiftKey ? event.key.toUpperCase() : event.key];
  if (run) { event.preventDefault(); run(); }
});
addEventListener('offline', () => toast('This device is offline.'));
addEventListener('online', () => { toast('This device is online again.'); connect(); });

talk.addEventListener('change', show);
talk.addEventListener('kept', show);
settings.addEventListener('key', connect);
settings.bind(find('settings-form'));
welcome(settings, composer);
find('gallery-open').addEventListener('click', () => viewer.openGallery());
find('settings-open').addEventListener('click', () => find('settings').showModal());
find('export').addEventListener('click', () => side.export());
find('import').addEventListener('click', () => find('import-file').click());
find('import-file').addEventListener('change', ({ target }) => { side.import(target.files[0]).then(() => { target.value = ''; }); });
find('clear').addEventListener('click', () => find('sure').showModal());
find('sure').addEventListener('close', () => { if (find('sure').returnValue === 'yes') side.clear(); });
for (const button of document.querySelectorAll('[data-close]')) button.addEventListener('click', () => button.closest('dialog').close());

const kept = location.hash && (await store.get(location.hash.slice(1)));
if (kept) talk.open(kept);
show();
await Promise.all([connect(), side.show()]);
document.body.dataset.ready = '';
