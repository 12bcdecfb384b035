// The AI SDK by either of its providers: "openai", OpenAI's own, or "any", the one for compatible servers.
import { APICallError, generateImage, generateText, streamText } from "ai";
import { experimental_generateSpeech as generateSpeech, experimental_transcribe as transcribe } from "ai";
import { facts, FOX, isPng, isWav, report, SEVEN, STORY, throws } from "./rows.mjs";

const packages = { openai: "@ai-sdk/openai", any: "@ai-sdk/openai-compatible" };
const name = packages[facts.way];
const made = await import(name);
const connect = (baseURL) =>
  facts.way === "openai"
    ? made.createOpenAI({ baseURL, apiKey: "none" })
    : made.createOpenAICompatible({ name: "mio", baseURL, apiKey: "none" });
const chat = (provider) => (provider.chat ?? provider.chatModel)("tiny");
const provider = connect(facts.base);
const own = facts.way === "openai" ? "openai" : "mio"; // the name under which a provider takes options of its own
const settings = (content, more) => ({
  model: chat(provider),
  maxRetries: 0,
  seed: 0,
  maxOutputTokens: 150,
  messages: [{ role: "user", content }],
  ...more,
});
const ask = (content, more) => generateText(settings(content, more));
const about = async (mediaType, data, text) =>
  (await ask([{ type: "file", mediaType, data: Buffer.from(data.split(",").at(-1), "base64") }, { type: "text", text }])).text;
const media = { providerOptions: { [own]: { modalities: ["image"] } } };
const speak = { providerOptions: { [own]: { modalities: ["audio"] } } };
const files = (reply, kind) => reply.files.filter((file) => file.mediaType.startsWith(kind));

async function streamed(model, more) {
  let text = "";
  const failed = [];
  const reply = streamText(settings(STORY, { model, onError: ({ error }) => failed.push(error), ...more }));
  for await (const piece of reply.textStream) text += piece;
  if (failed.length) throw failed[0];
  return text;
}

const responses = () => ({ model: provider.responses("tiny"), seed: undefined });

async function drawn() {
  const tools = { image_generation: provider.tools.imageGeneration({}) };
  const options = { tools, toolChoice: { type: "tool", toolName: "image_generation" } };
  const reply = await ask(FOX, { ...responses(), ...options });
  return reply.staticToolResults.concat(reply.dynamicToolResults)[0].output.result;
}

const both = {
  text: async () => (await ask(STORY)).text === facts.told,
  stream: async () => (await streamed(chat(provider))) === facts.told,
  "image in": async () => (await about("image/png", facts.image, "What is this?")) === facts.seen,
  "audio in": async () => (await about("audio/wav", facts.sound, "What is said?")) === facts.heard,
  "image out": async () => files(await ask(FOX, media), "image").length > 0,
  "audio out": async () => files(await ask(SEVEN, speak), "audio").length > 0,
  "images endpoint": async () =>
    isPng((await generateImage({ model: provider.imageModel("tiny"), prompt: "a fox", maxRetries: 0 })).image.uint8Array),
  errors: () => throws(APICallError.isInstance, "temperature", () => ask(STORY, { temperature: 9 })),
  "error in a stream": () => throws(() => true, "engine failed", () => streamed(chat(connect(facts.broken)))),
  "retry after 429": async () => (await ask(STORY, { model: chat(connect(facts.busy)), maxRetries: 2 })).text === facts.told,
};
const more = {
  responses: async () => (await ask(STORY, responses())).text === facts.told,
  "responses, streamed": async () => (await streamed(provider.responses("tiny"), { seed: undefined })) === facts.told,
  "responses, image out": async () => isPng(await drawn()),
  "speech endpoint": async () => {
    const model = provider.speech("tiny");
    return isWav((await generateSpeech({ model, text: "seven", voice: "theo", outputFormat: "wav" })).audio.uint8Array);
  },
  "transcription endpoint": async () => {
    const audio = Buffer.from(facts.sound, "base64");
    return (await transcribe({ model: provider.transcription("tiny"), audio, maxRetries: 0 })).text === facts.heard.trim();
  },
};
await report(name, facts.way === "openai" ? { ...both, ...more } : both);
