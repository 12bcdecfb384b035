// OpenAI's own client for node.
import OpenAI, { toFile } from "openai";
import { facts, FOX, isPng, isWav, report, SEVEN, STORY, throws } from "./rows.mjs";

const connect = (baseURL, maxRetries = 0) => new OpenAI({ baseURL, apiKey: "none", maxRetries });
const client = connect(facts.base);
const body = (content, fields) => ({ model: "tiny", seed: 0, max_tokens: 150, messages: [{ role: "user", content }], ...fields });
const ask = async (content, fields, by = client) => (await by.chat.completions.create(body(content, fields))).choices[0].message;
const added = async (content, fields) =>
  (await client.chat.completions.stream(body(content, fields)).finalChatCompletion()).choices[0].message;
const about = async (part, text) => (await ask([part, { type: "text", text }])).content;
const linked = (kind) => ({ type: `${kind}_url`, [`${kind}_url`]: { url: facts[kind] } });
const respond = (input, fields) =>
  client.responses.create({ model: "tiny", input, seed: 0, max_output_tokens: 150, ...fields });
const sound = { modalities: ["audio"], audio: { voice: "theo", format: "pcm16" } };
const wav = () => toFile(Buffer.from(facts.sound, "base64"), "seven.wav");
const recording = { type: "input_audio", input_audio: { data: facts.sound, format: "wav" } };

async function respondStreamed() {
  let text = "";
  for await (const event of await respond(STORY, { stream: true }))
    if (event.type === "response.output_text.delta") text += event.delta;
  return text;
}

async function drawn() {
  const reply = await respond(FOX, { tools: [{ type: "image_generation" }], tool_choice: "required" });
  return reply.output[0].result;
}

async function spoken() {
  const made = await client.audio.speech.create({ model: "tiny", voice: "theo", input: "seven", response_format: "wav" });
  return made.arrayBuffer();
}

// The pieces as they come: the client's helper keeps the first of them only.
async function streamedSound() {
  const pieces = [];
  for await (const chunk of await client.chat.completions.create(body(SEVEN, { ...sound, stream: true })))
    if (chunk.choices[0]?.delta.audio?.data) pieces.push(chunk.choices[0].delta.audio.data);
  return pieces.join("");
}

async function broken() {
  const stream = await connect(facts.broken).chat.completions.create(body(STORY, { stream: true }));
  for await (const _ of stream);
}

await report("openai", {
  text: async () => (await ask(STORY)).content === facts.told,
  stream: async () => (await added(STORY)).content === facts.told,
  "image in": async () => (await about(linked("image"), "What is this?")) === facts.seen,
  "audio in": async () => (await about(recording, "What is said?")) === facts.heard,
  "video in": async () => (await about(linked("video"), "How does it move?")) === facts.watched,
  "image out": async () => isPng((await ask(FOX, { modalities: ["image"] })).images[0].image_url.url),
  "image out, streamed": async () => isPng((await added(FOX, { modalities: ["image"] })).images[0].image_url.url),
  "audio out": async () => isWav((await ask(SEVEN, { ...sound, audio: { voice: "theo", format: "wav" } })).audio.data),
  "audio out, streamed": async () => (await streamedSound()) === (await ask(SEVEN, sound)).audio.data,
  "video out": async () => Boolean((await ask("Film a red ball moving left.", { modalities: ["video"] })).videos[0].video_url.url),
  "order of parts": async () => (await ask(FOX, { modalities: ["image"] })).parts[0].type === "image",
  responses: async () => (await respond(STORY)).output_text === facts.told,
  "responses, streamed": async () => (await respondStreamed()) === facts.told,
  "responses, image out": async () => isPng(await drawn()),
  "images endpoint": async () => isPng((await client.images.generate({ model: "tiny", prompt: "a fox" })).data[0].b64_json),
  "speech endpoint": async () => isWav(await spoken()),
  "transcription endpoint": async () =>
    (await client.audio.transcriptions.create({ model: "tiny", file: await wav() })).text === facts.heard.trim(),
  errors: () => throws((e) => e instanceof OpenAI.BadRequestError, "temperature", () => ask(STORY, { temperature: 9 })),
  "error in a stream": () => throws((e) => e instanceof OpenAI.APIError, "engine failed", broken),
  "retry after 429": async () => (await ask(STORY, {}, connect(facts.busy, 2))).content === facts.told,
});
