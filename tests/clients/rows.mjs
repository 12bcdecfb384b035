// What the node programs share: facts come as JSON on standard input, each row goes out as a line of JSON.
import { readFileSync } from "node:fs";

export const STORY = "Tell a story about a fox.";
export const FOX = "Draw a fox in noto style.";
export const SEVEN = "Say seven.";
export const facts = JSON.parse(readFileSync(0, "utf8"));

const version = (name) => JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;

// A check is true, false where the client lost what the server sent, or throws what went wrong.
export async function report(name, checks) {
  console.log(JSON.stringify({ version: version(name) }));
  for (const [row, check] of Object.entries(checks)) {
    let result;
    try {
      result = (await check()) ? "yes" : "dropped";
    } catch (error) {
      result = `no: ${error.name}: ${String(error.message).slice(0, 200)}`;
    }
    console.log(JSON.stringify({ [row]: result }));
  }
}

const bytes = (data) => (typeof data === "string" ? Buffer.from(data.split(",").at(-1), "base64") : Buffer.from(data));
export const isPng = (data) => bytes(data).subarray(1, 4).toString() === "PNG";
export const isWav = (data) => bytes(data).subarray(0, 4).toString() === "RIFF";

// Whether a call fails in the client's own way and tells the server's words.
export async function throws(kind, words, call) {
  try {
    await call();
  } catch (error) {
    if (kind(error) && String(error.message).includes(words)) return true;
    throw error;
  }
  return false;
}
