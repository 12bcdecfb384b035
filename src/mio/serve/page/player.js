/* A sound as its waveform: play, seek by pointer or arrow keys, see the time. */

import { duration, el, icon, svg } from './dom.js';
import { samples } from './media.js';

const BARS = 48;
const RATE = 8000; // enough to draw

/** Loudest value of each of BARS stretches, the loudest of all being 1. */
function peaks(values) {
  const width = Math.max(1, Math.ceil(values.length / BARS));
  const loud = Array.from({ length: BARS }, (_, bar) => (
    values.subarray(bar * width, (bar + 1) * width).reduce((most, value) => Math.max(most, Math.abs(value)), 0)));
  const most = Math.max(...loud, 1e-6);
  return loud.map((value) => value / most);
}

function bars(heights) {
  return heights.map((height, bar) => {
    const tall = 3 + 25 * height;
    return svg('rect', { x: bar * 4 + 0.5, y: 16 - tall / 2, width: 2.5, height: tall, rx: 1.25 });
  });
}

export function player(url, blob, label) {
  const audio = el('audio', { src: url, preload: 'metadata' });
  const toggle = el('button', { type: 'button', class: 'play', 'aria-label': `Play ${label}` }, icon('play'));
  const wave = svg('svg', { class: 'wave', viewBox: `0 0 ${BARS * 4} 32`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const seek = el('input', { type: 'range', min: 0, max: 1000, value: 0, 'aria-label': `Position in ${label}` });
  const time = el('span', { class: 'time' }, '0:00');
  let seconds = 0;

  const draw = () => {
    const part = seconds ? audio.currentTime / seconds : 0;
    seek.value = part * 1000;
    seek.setAttribute('aria-valuetext', `${duration(audio.currentTime)} of ${duration(seconds)}`);
    [...wave.children].forEach((bar, at) => bar.classList.toggle('done', at < part * BARS));
    time.textContent = tenths(audio.paused && !audio.currentTime ? seconds : audio.currentTime);
    if (!audio.paused) requestAnimationFrame(draw);
  };
  const change = () => {
    toggle.setAttribute('aria-label', `${audio.paused ? 'Play' : 'Pause'} ${label}`);
    toggle.replaceChildren(icon(audio.paused ? 'play' : 'pause'));
    draw();
  };
  toggle.addEventListener('click', () => (audio.paused ? start(audio) : audio.pause()));
  seek.addEventListener('input', () => { audio.currentTime = seconds * seek.value / 1000; draw(); });
  for (const event of ['play', 'pause', 'ended']) audio.addEventListener(event, change);
  samples(blob, RATE).catch(() => new Float32Array(1)).then((values) => {
    seconds = values.length / RATE;
    wave.append(...bars(peaks(values)));
    draw();
  });
  return el('div', { class: 'player' }, toggle, el('div', { class: 'track' }, wave, seek), time, audio);
}

const tenths = (seconds) => (seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds));

/** One sound at a time. */
export function start(audio) {
  for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
  return audio.play().catch(() => {});
}
