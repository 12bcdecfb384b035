/* A streamed answer: bytes -> events -> parts in the order they came. Touches neither page nor network. */

import { blobOf, fromBase64, wav } from './media.js';

export const PCM_RATE = 24000; // what `pcm16` means in this interface

/** What went wrong, in the server's words; `retryAfter` in seconds, 0 where it named none. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = '', retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** The JSON of every `data:` line up to `[DONE]`. Lines are joined once, however many chunks they come in. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = [];
  try {
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      const [first, ...lines] = value.split('\n');
      held.push(first);
      for (const line of lines) {
        const data = held.join('').match(/^data: ?(.*?)\r?$/s)?.[1];
        if (data === '[DONE]') return;
        if (data) yield JSON.parse(data);
        held = [line];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError('The connection was cut before the answer ended.', { code: 'cut' });
}

/** How each field of a delta becomes parts. */
const FIELDS = {
  content: (answer, text) => answer.say(text),
  images: (answer, items) => items.forEach((item) => answer.show('image', item.image_url.url)),
  audio: (answer, piece) => answer.sound(piece),
  videos: (answer, items) => items.forEach((item) => answer.show('video', item.video_url.url)),
};

/** `asked`: the words that the answer is to; they describe its media to those who cannot see or hear them. */
export class Answer {
  parts = [];
  usage = null;
  model = '';
  finish = '';
  faults = []; // why parts are missing

  constructor(asked = '') {
    this.asked = asked;
  }

  /** Takes one event in; an error event is thrown, and what came before it stays. */
  take(event) {
    if (event.error) throw new ApiError(event.error.message, { code: event.error.code ?? '' });
    this.model = event.model ?? this.model;
    this.usage = event.usage ?? this.usage;
    const choice = event.choices?.[0];
    if (!choice) return;
    for (const [field, read] of Object.entries(FIELDS)) {
      if (choice.delta?.[field]) read(this, choice.delta[field]);
    }
    if (choice.finish_reason) this.end(choice);
  }

  say(text) {
    const last = this.parts.at(-1);
    if (last?.kind === 'text') last.text += text;
    else this.#begin({ kind: 'text', text });
  }

  show(kind, url) {
    const blob = blobOf(url, kind);
    this.#begin(blob ? { kind, blob, made: true, asked: this.asked } : { kind: 'text', text: `(A ${kind} came in a format that cannot be shown.)` });
  }

  sound({ data = '', transcript = '' }) {
    let part = this.parts.at(-1);
    if (part?.kind !== 'audio') part = this.#begin({ kind: 'audio', pieces: [], transcript: '', made: true, asked: this.asked });
    part.transcript += transcript;
    if (data) part.pieces.push(fromBase64(data));
  }

  end({ finish_reason: reason, parts = [] }) {
    this.finish = reason;
    this.faults = parts.filter(({ type }) => type === 'error').map(({ message }) => message);
    this.#close();
  }

  #begin(part) {
    this.#close();
    this.parts.push(part);
    return part;
  }

  /** A sound is whole once something else begins. */
  #close() {
    const part = this.parts.at(-1);
    if (!part?.pieces) return;
    part.blob = wav(part.pieces, PCM_RATE, true);
    delete part.pieces;
  }
}
