/* The microphone: records until it is told to stop, and shows how loud it is meanwhile. */

import { duration, el, find } from './dom.js';
import { wavOf } from './media.js';

const LONGEST = 600; // seconds
const BARS = 24;

/** Whether the browser lets this page record: only over https or on this machine. */
export const possible = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/** A recording as a part, or null where it was thrown away. */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start();
  const wanted = await shown(stream);
  recorder.stop();
  await stopped;
  stream.getTracks().forEach((track) => track.stop());
  if (!wanted) return null;
  return { kind: 'audio', blob: await wavOf(new Blob(pieces, { type: recorder.mimeType })), name: 'recording.wav' };
}

/** The bar with level, time and buttons; resolves with whether to keep the recording. */
async function shown(stream) {
  const context = new AudioContext();
  const meter = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(meter);
  const levels = Array.from({ length: BARS }, () => el('i'));
  find('levels').replaceChildren(...levels);
  const begun = performance.now();
  const wave = new Float32Array(meter.fftSize);
  const clock = setInterval(() => {
    meter.getFloatTimeDomainData(wave);
    const loud = Math.min(1, 4 * Math.sqrt(wave.reduce((sum, value) => sum + value * value, 0) / wave.length));
    levels.forEach((bar, at) => { bar.style.height = at < BARS - 1 ? levels[at + 1].style.height : `${10 + 90 * loud}%`; });
    find('recorded').textContent = duration((performance.now() - begun) / 1000);
  }, 60);
  const wanted = await decided();
  clearInterval(clock);
  await context.close();
  return wanted;
}

function decided() {
  const [bar, keep, drop] = ['recorder', 'record-keep', 'record-drop'].map(find);
  bar.hidden = false;
  keep.focus();
  return new Promise((resolve) => {
    const end = (wanted) => { bar.hidden = true; clearTimeout(limit); resolve(wanted); };
    const limit = setTimeout(() => end(true), LONGEST * 1000);
    keep.onclick = () => end(true);
    drop.onclick = () => end(false);
    bar.onkeydown = ({ key }) => key === 'Escape' && end(false);
  });
}
