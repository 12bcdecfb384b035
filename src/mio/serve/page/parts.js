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

function figure(part, shown, ...buttons) {
  const label = part.made ? badge() : el('span', { class: 'name' }, part.name ?? '');
  return el('figure', { class: `medium ${part.kind}` }, shown, el('figcaption', {}, label, ...buttons, saveButton(part)));
}

const opener = (part, open, shown) => (
  el('button', { type: 'button', class: 'open', 'aria-label': `Open ${described(part)}`, onclick: () => open(part) }, shown));

/** A clip without sound, over and over; it starts by itself unless motion is unwanted. */
function loop(part) {
  const video = el('video', { src: urlOf(part), loop: true, playsinline: true, preload: 'auto' });
  video.muted = true;
  video.autoplay = part.made && !matchMedia('(prefers-reduced-motion: reduce)').matches;
  return video;
}

function clip(part, open) {
  const video = loop(part);
  const toggle = iconButton('play', `Play ${described(part)}`, () => (video.paused ? video.play() : video.pause()), { class: 'round small' });
  const change = () => {
    const name = `${video.paused ? 'Play' : 'Pause'} ${described(part)}`;
    toggle.setAttribute('aria-label', name);
    toggle.title = name;
    toggle.replaceChildren(icon(video.paused ? 'play' : 'pause'));
  };
  for (const event of ['play', 'pause']) video.addEventListener(event, change);
  return figure(part, opener(part, open, video), toggle);
}

const picture = (part) => el('img', { src: urlOf(part), alt: described(part) });

const coming = (kind) => el('div', { class: 'coming' }, el('span', { class: 'pulse' }), `A ${KINDS[kind].one} is coming …`);

/** What shows a part within a message; `open` shows it large. */
export const VIEWS = {
  text: (part) => el('div', { class: 'prose' }, ...markdown(part.text)),
  image: (part, open) => figure(part, opener(part, open, picture(part))),
  audio: (part) => (part.blob ? figure(part, player(urlOf(part), part.blob, described(part))) : coming('audio')),
  video: clip,
};

/** The same, large and without a frame. */
export const LARGE = {
  image: picture,
  audio: (part) => player(urlOf(part), part.blob, described(part)),
  video: (part) => Object.assign(loop(part), { controls: true, ariaLabel: described(part) }),
};

/** Small, for the tray and the gallery. */
export const THUMBS = {
  image: (part) => el('img', { src: urlOf(part), alt: '' }),
  audio: () => icon('audio'),
  video: (part) => el('video', { src: urlOf(part), preload: 'metadata', muted: true, tabindex: '-1', 'aria-hidden': 'true' }),
};
