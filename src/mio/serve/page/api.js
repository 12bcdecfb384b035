/* The server's interface as this page uses it: models and chat completions, nothing else. */

import { plainType, textOf } from './kinds.js';
import { base64, dataUrl, samples, pcm } from './media.js';
import { ApiError, PCM_RATE, events } from './stream.js';

/** What to do, by code or status, where the server's own words do not say. */
const ADVICE = {
  offline: 'Check that mio serve is running and that this device is connected.',
  400: 'If the chat has become too long, start a new one, or turn off “Send earlier messages” in the settings.',
  401: 'Enter the API key in the settings.',
  413: 'Send a smaller file.',
};

/** Statuses that may be gone in a while, in words. */
const PASSING = { 429: 'The server is busy.', 503: 'The server is not ready.' };

export const advice = (error) => ADVICE[error.code] ?? ADVICE[error.status] ?? '';

/** Why asking again in a while may help; '' where it will not. */
export const passing = (error) => PASSING[error.status] ?? '';

async function call(path, key, options = {}) {
  const headers = { ...(options.body && { 'content-type': 'application/json' }), ...(key && { authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers }).catch((cause) => {
    if (cause.name === 'AbortError') throw cause;
    throw new ApiError('The server cannot be reached.', { code: 'offline' });
  });
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const { error = {} } = await response.json().catch(() => ({}));
  const { status } = response;
  const retryAfter = Number(response.headers.get('retry-after')) || 0;
  return new ApiError(error.message ?? `The server answered with status ${status}.`, { status, code: error.code ?? '', retryAfter });
}

/** The models there are, each with what goes in and comes out, and its voices. */
export async function models(key) {
  const { data } = await (await call('/v1/models', key)).json();
  return data;
}

/** Events of a streamed answer. */
export async function* chat(request, key, signal) {
  const response = await call('/v1/chat/completions', key, { method: 'POST', body: JSON.stringify(request), signal });
  yield* events(response.body);
}

/** How a part of a user's message is written. */
const WRITE = {
  text: async ({ text }) => ({ type: 'text', text }),
  image: async ({ blob }) => ({ type: 'image_url', image_url: { url: await dataUrl(blob) } }),
  audio: async ({ blob }) => {
    const format = { 'audio/wav': 'wav', 'audio/mpeg': 'mp3' }[plainType(blob.type)];
    return format
      ? { type: 'input_audio', input_audio: { data: await base64(blob), format } }
      : { type: 'audio_url', audio_url: { url: await dataUrl(blob) } };
  },
  video: async ({ blob }) => ({ type: 'video_url', video_url: { url: await dataUrl(blob) } }),
};

const written = (parts) => Promise.all(parts.map((part) => WRITE[part.kind](part)));

/** All sounds of an answer as the one file that an answer may hold. */
async function spoken(sounds) {
  const pieces = await Promise.all(sounds.map(async ({ blob }) => pcm(await samples(blob, PCM_RATE))));
  return { format: 'pcm16', data: await base64(new Blob(pieces)) };
}

/** The order of an answer's parts: where in its text, or which of its media. */
function order(parts) {
  const counts = {};
  let at = 0;
  return parts.map(({ kind, text = '' }) => {
    const start = at;
    at += [...text].length; // characters as the server counts them
    counts[kind] = (counts[kind] ?? -1) + (kind === 'audio' && counts[kind] === 0 ? 0 : 1);
    return kind === 'text' ? { type: kind, start, end: at } : { type: kind, index: counts[kind] };
  });
}

/** How a message of each role is written; earlier answers carry their media in the fields in which they came. */
const MESSAGE = {
  user: async ({ parts }) => ({ role: 'user', content: await written(parts) }),
  assistant: async ({ parts }) => {
    const of = (kind) => parts.filter((part) => part.kind === kind);
    const sounds = of('audio');
    return {
      role: 'assistant', content: textOf(parts), parts: order(parts), images: await written(of('image')),
      videos: await written(of('video')), ...(sounds.length && { audio: await spoken(sounds) }),
    };
  },
};

/** The body of a request: the conversation so far and how to answer it. */
export async function requestOf(messages, settings) {
  const { model, out, order: pattern, voice, temperature, seed, tokens, system, memory } = settings;
  const sent = (memory ? messages : messages.slice(-1)).filter((message) => message.parts.length);
  const turns = await Promise.all(sent.map((message) => MESSAGE[message.role](message)));
  return {
    model,
    messages: system ? [{ role: 'system', content: system }, ...turns] : turns,
    modalities: out,
    ...(pattern && { out: pattern }),
    stream: true,
    stream_options: { include_usage: true },
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
    ...((out.includes('audio') || pattern.includes('audio')) && { audio: { format: 'pcm16', ...(voice && { voice }) } }),
    ...(temperature !== null && { temperature }),
    ...(tokens !== null && { max_completion_tokens: tokens }),
  };
}
