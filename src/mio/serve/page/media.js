/* Bytes of media: base64, data URLs, WAV, downloads. A medium is shown only as a blob of a type that KINDS lists. */

import { KINDS, kindOf, plainType, suffixOf } from './kinds.js';

const GENERATED = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia';

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** A blob from `data:TYPE;base64,...`; null where the type is not one that `kind` may have. */
export function blobOf(url, kind) {
  const [, type, data] = /^data:([^;,]+)[^,]*;base64,(.*)$/s.exec(url) ?? [];
  return type && plainType(type) in KINDS[kind].types ? new Blob([fromBase64(data)], { type: plainType(type) }) : null;
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

export async function base64(blob) {
  const url = await dataUrl(blob);
  return url.slice(url.indexOf(',') + 1);
}

/** A WAV file from pieces of 16-bit mono PCM; generated sound says so in XMP and in the comment that players show. */
export function wav(pieces, rate, generated) {
  const marks = generated ? [...chunk('LIST', info()), ...chunk('_PMX', xmp())] : [];
  const body = [text('WAVE'), ...chunk('fmt ', format(rate)), ...marks, ...chunk('data', ...pieces)];
  const size = total(body);
  return new Blob([text('RIFF'), number(size, 4), ...body], { type: 'audio/wav' });
}

const text = (string) => new TextEncoder().encode(string);
const number = (value, bytes) => Uint8Array.from({ length: bytes }, (_, at) => (value >>> (8 * at)) & 255);
const join = (...pieces) => Uint8Array.from(pieces.flatMap((piece) => [...piece]));

const total = (pieces) => pieces.reduce((sum, piece) => sum + piece.length, 0);

/** A chunk's name, its length, what it holds, and a byte that makes it even. */
function chunk(name, ...content) {
  const length = total(content);
  return [text(name), number(length, 4), ...content, new Uint8Array(length % 2)];
}

const format = (rate) => join(number(1, 2), number(1, 2), number(rate, 4), number(rate * 2, 4), number(2, 2), number(16, 2));
const info = () => join(text('INFO'), ...chunk('ICMT', text(`AI-generated. ${GENERATED}\0`)), ...chunk('ISFT', text('mio\0')));

const xmp = () => text(
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
  '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" ' +
  `Iptc4xmpExt:DigitalSourceType="${GENERATED}"/></rdf:RDF></x:xmpmeta>`);

/** Samples in [-1, 1] of any sound the browser can decode, at a rate of choice, all channels mixed into one. */
export async function samples(blob, rate) {
  const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, at) => { mixed[at] += value / sound.numberOfChannels; });
  }
  return mixed;
}

/** What a microphone recorded as a WAV file, which every server of this interface reads. */
export async function wavOf(blob, rate = 16000) {
  return wav([pcm(await samples(blob, rate))], rate, false);
}

/** Samples as bytes of 16-bit PCM. */
export function pcm(values) {
  const whole = Int16Array.from(values, (value) => Math.max(-1, Math.min(1, value)) * 32767);
  return new Uint8Array(whole.buffer);
}

/** A file as a part of a message; pictures of other formats that the browser can open become JPEG. */
export async function partOf(file) {
  const known = kindOf(file.type);
  const blob = known ? file : await reencoded(file);
  const kind = known || 'image';
  const { bytes, one } = KINDS[kind];
  if (blob.size > bytes) throw new Error(`This ${one} has ${Math.ceil(blob.size / 2 ** 20)} MiB; at most ${bytes / 2 ** 20} are read.`);
  return { kind, blob, name: file.name || `${one}.${suffixOf(blob.type)}` };
}

async function reencoded(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) throw new Error(`${file.name || 'This file'} is neither a picture nor a sound nor a clip that can be read here.`);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.92 });
}

export function download(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
