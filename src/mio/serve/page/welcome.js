/* What an empty conversation shows: things to try, as far as the model can do them. */

import { el, find, icon } from './dom.js';

/** `begin`: what the composer does first; without it the text is sent at once. */
const STARTERS = [
  { kind: 'image', title: 'Draw a picture', text: 'Draw a red heart in twemoji style.', out: ['image'] },
  { kind: 'audio', title: 'Say a word', text: 'Say seven in the voice of theo.', out: ['audio'] },
  { kind: 'video', title: 'Film a clip', text: 'Film a heart suit gets bigger on a pink background.', hint: 'A heart that grows on a pink background', out: ['video'] },
  { kind: 'story', title: 'Tell an illustrated story', text: 'Tell an illustrated story: The lost goat', out: ['text', 'image'], order: '(image text){4}' },
  { kind: 'draw', title: 'Draw something yourself', text: 'What is this?', out: ['text'], begin: 'draw', hint: 'And ask what it is' },
  { kind: 'mic', title: 'Say something yourself', text: 'What is said?', out: ['text'], begin: 'record', hint: 'And see it written down' },
];

export function welcome(settings, composer) {
  const show = () => {
    const can = settings.model.modalities?.output ?? [];
    const rows = STARTERS.filter(({ out }) => out.every((kind) => can.includes(kind)));
    find('starters').replaceChildren(...rows.map((row) => el('li', {}, starter(row, settings, composer))));
  };
  settings.addEventListener('change', show);
  show();
}

function starter({ kind, title, text, out, order = '', begin, hint }, settings, composer) {
  const run = async () => {
    settings.set({ out, order });
    composer.write(text);
    if (begin) await composer[begin]();
    else composer.submit();
  };
  return el('button', { type: 'button', class: `starter ${kind}`, onclick: run },
    el('span', { class: 'disc' }, icon(kind)), el('span', {}, el('strong', {}, title), el('span', { class: 'hint' }, hint ?? text)));
}
