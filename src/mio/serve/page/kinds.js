/* The kinds of parts, a row each: all that differs between them besides how they look. */

const MIB = 2 ** 20;

export const KINDS = {
  text: { label: 'Text', one: 'text', many: 'texts', types: {}, bytes: MIB },
  image: {
    label: 'Picture', one: 'picture', many: 'pictures', bytes: 20 * MIB,
    types: { 'image/png': 'png', 'image/jpeg': 'jpg', 'image/webp': 'webp', 'image/gif': 'gif' },
  },
  audio: {
    label: 'Voice', one: 'recording', many: 'recordings', bytes: 25 * MIB,
    types: {
      'audio/wav': 'wav', 'audio/mpeg': 'mp3', 'audio/flac': 'flac', 'audio/ogg': 'ogg', 'audio/webm': 'webm',
      'audio/mp4': 'm4a', 'audio/aac': 'aac',
    },
  },
  video: {
    label: 'Clip', one: 'clip', many: 'clips', bytes: 64 * MIB,
    types: { 'video/mp4': 'mp4', 'video/webm': 'webm', 'video/quicktime': 'mov' },
  },
};

const SAME = { 'audio/x-wav': 'audio/wav', 'audio/wave': 'audio/wav', 'audio/mp3': 'audio/mpeg', 'audio/x-flac': 'audio/flac', 'audio/x-m4a': 'audio/mp4' };

/** A media type without parameters, by its usual name. */
export function plainType(type) {
  const plain = type.split(';')[0].trim().toLowerCase();
  return SAME[plain] ?? plain;
}

/** The kind whose files have this media type, or '' where none has. */
export function kindOf(type) {
  return Object.keys(KINDS).find((kind) => plainType(type) in KINDS[kind].types) ?? '';
}

export const suffixOf = (type) => KINDS[kindOf(type)]?.types[plainType(type)] ?? 'bin';

export const media = (parts) => parts.filter((part) => part.blob);

export const textOf = (parts) => parts.filter((part) => part.kind === 'text').map((part) => part.text).join('');

/** "text, 2 pictures and 1 clip": what an answer holds. */
export function summary(parts) {
  const words = Object.entries(KINDS).map(([kind, { one, many }]) => {
    const count = parts.filter((part) => part.kind === kind).length;
    if (!count) return '';
    return kind === 'text' ? one : `${count} ${count === 1 ? one : many}`;
  }).filter(Boolean);
  return words.length > 1 ? `${words.slice(0, -1).join(', ')} and ${words.at(-1)}` : words.join('');
}
