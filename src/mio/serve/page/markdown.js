/* A small part of Markdown as elements: headings, lists, quotes, code, emphasis, links. One pass, no markup parsed. */

import { el } from './dom.js';

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;

function inline(text) {
  const nodes = [];
  let done = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, code, strong, emphasis, label, href] = found;
    nodes.push(text.slice(done, found.index));
    if (code) nodes.push(el('code', {}, code));
    else if (strong) nodes.push(el('strong', {}, strong));
    else if (emphasis) nodes.push(el('em', {}, emphasis));
    else nodes.push(el('a', { href, target: '_blank', rel: 'noopener noreferrer' }, label));
    done = found.index + whole.length;
  }
  return [...nodes, text.slice(done)];
}

/** Blocks by how their first line looks; `take` says which lines go on with it. */
const BLOCKS = [
  { begins: /^```/, build: fence },
  { begins: /^#{1,4} /, build: (lines) => el('h3', {}, inline(lines.shift().replace(/^#+ /, ''))) },
  { begins: /^> ?/, build: (lines) => el('blockquote', {}, ...blocks(run(lines, /^> ?/))) },
  { begins: /^[-*] /, build: (lines) => el('ul', {}, run(lines, /^[-*] /).map((line) => el('li', {}, inline(line)))) },
  { begins: /^\d+[.)] /, build: (lines) => el('ol', {}, run(lines, /^\d+[.)] /).map((line) => el('li', {}, inline(line)))) },
  { begins: /^\s*$/, build: (lines) => (lines.shift(), null) },
];

function run(lines, begins) {
  const taken = [];
  while (lines.length && begins.test(lines[0])) taken.push(lines.shift().replace(begins, ''));
  return taken;
}

/** Code up to the closing fence, or to the end while it still comes in. */
function fence(lines) {
  lines.shift();
  const end = lines.findIndex((line) => line.startsWith('```'));
  const code = lines.splice(0, end < 0 ? lines.length : end + 1).slice(0, end < 0 ? undefined : -1);
  return el('pre', { tabindex: '0' }, el('code', {}, code.join('\n')));
}

function paragraph(lines) {
  const taken = [lines.shift()];
  while (lines.length && !BLOCKS.some(({ begins }) => begins.test(lines[0]))) taken.push(lines.shift());
  return el('p', {}, taken.flatMap((line, at) => [...(at ? [el('br')] : []), ...inline(line)]));
}

function blocks(lines) {
  const built = [];
  while (lines.length) {
    const block = BLOCKS.find(({ begins }) => begins.test(lines[0]));
    built.push(block ? block.build(lines) : paragraph(lines));
  }
  return built.filter(Boolean);
}

export const markdown = (text) => blocks(text.trim().split('\n'));
