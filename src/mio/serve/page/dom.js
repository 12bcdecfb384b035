/* Elements from plain values. Text is only ever set as text, so nothing a model says can become markup. */

const SVG = 'http://www.w3.org/2000/svg';

/** An element; `on...` properties are listeners, `true` is a bare attribute, and `null` or `false` leaves one out. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) set(node, name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function set(node, name, value) {
  if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
  else if (value === true) node.setAttribute(name, '');
  else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
}

/** One of the pictograms that index.html carries. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A round button of one pictogram, with its name for those who cannot see it. */
export function iconButton(name, label, onclick, properties = {}) {
  return el('button', { type: 'button', class: 'round', 'aria-label': label, title: label, onclick, ...properties }, icon(name));
}

export const find = (id) => document.getElementById(id);

/** Said once to screen readers; nothing is shown. */
export function announce(text) {
  find('status').textContent = text;
}

/** A short note at the bottom, with at most one thing to do about it. */
export function toast(text, action = null, seconds = 6) {
  const note = el('div', { class: 'toast' }, el('span', {}, text));
  if (action) {
    note.append(el('button', { type: 'button', class: 'link', onclick: () => { note.remove(); action.run(); } }, action.label));
  }
  note.append(iconButton('close', 'Dismiss', () => note.remove()));
  find('toasts').append(note);
  setTimeout(() => note.remove(), seconds * 1000);
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
