/* Parts of messages as a person sees them: one row of VIEWS for each kind. */

import { el, icon, iconButton } from './dom.js';
import { KINDS, suffixOf } from './kinds.js';
import { markdown } from './markdown.js';
import { download } from './media.js';
import { player } from './player.js';

const urls = new WeakMap();

/** A URL for the part's bytes, the same one every time. */
export function urlOf(part) {
  if (!urls.has(part)) urls.set(part, URL.createObjectURL(part.blob));
  return urls.get(part);
}

export function fileName(part) {
  if (part.name) return part.name;
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, '-');
  return `mio-${KINDS[part.kind].one}-${stamp}.${suffixOf(part.blob.type)}`;
}

/** In words: what a medium is, for those who cannot see or hear it. */
export function described(part) {
  const { one } = KINDS[part.kind];
  if (!part.made) return `${one} you sent${part.name ? `: ${part.name}` : ''}`;
  const said = part.transcript || part.asked;
  return `AI-generated ${one}${said ? `: ${said}` : ''}`;
}

export const badge = () => el('span', { class: 'badge' }, icon('spark'), 'AI-generated');

export const saveButton = (part) => (
  iconButton('save', `Download ${described(part)}`, () => download(part.blob, fileName(part)), { class: 'round small' }));

function figure(part, ...shown) {
  const caption = el('figcaption', {}, part.made ? badge() : el('span', { class: 'name' }, part.name ?? ''), saveButton(part));
  return el('figure', { class: `medium ${part.kind}` }, ...shown, caption);
}

function clip(part) {
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const video = el('video', { src: urlOf(part), controls: true, loop: true, muted: true, playsinline: true, 'aria-label': described(part) });
  video.muted = true;
  if (part.made && !still) video.autoplay = true;
  return video;
}

const opener = (part, open) => (
  el('button', { type: 'button', class: 'open', 'aria-label': `Open ${described(part)}`, onclick: () => open(part) },
    el('img', { src: urlOf(part), alt: described(part) })));

const coming = (kind) => el('div', { class: 'coming' }, el('span', { class: 'pulse' }), `A ${KINDS[kind].one} is coming …`);

/** What shows a part within a message; `open` shows it large. */
export const VIEWS = {
  text: (part) => el('div', { class: 'text' }, ...markdown(part.text)),
  image: (part, open) => figure(part, opener(part, open)),
  audio: (part) => (part.blob ? figure(part, player(urlOf(part), part.blob, described(part))) : coming('audio')),
  video: (part) => figure(part, clip(part)),
};

/** The same, large and without a frame. */
export const LARGE = {
  image: (part) => el('img', { src: urlOf(part), alt: described(part) }),
  audio: (part) => player(urlOf(part), part.blob, described(part)),
  video: clip,
};

/** Small, for the tray and the gallery. */
export const THUMBS = {
  image: (part) => el('img', { src: urlOf(part), alt: '' }),
  audio: () => icon('audio'),
  video: (part) => el('video', { src: urlOf(part), preload: 'metadata', muted: true, tabindex: '-1', 'aria-hidden': 'true' }),
};
