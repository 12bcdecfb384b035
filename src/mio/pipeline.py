"""What a user holds: a model folder, loaded, that chats, completes and streams in every modality it speaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mio.checkpoint import MANIFEST, commit, compact, load_state, load_tensors, read_json, require, save_module
from mio.config import from_dict, suggest, to_dict
from mio.decoding.constraint import Constraint, Shape, Spelling, constraint
from mio.decoding.constraint import Regex as Regex
from mio.decoding.constraint import Schema as Schema
from mio.decoding.engine import generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Pattern, Repeat, any_order, names, read
from mio.decoding.profiles import setting
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, Sampling
from mio.media import read_audio, read_image, read_video, sniff, write_audio, write_image, write_video
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.decoders import PixelDecoder, PixelDecoderConfig
from mio.models.quantized import Bits, quantize_linears
from mio.pretrained.hub import locate
from mio.pretrained.inventory import is_released
from mio.pretrained.lazy import LazyTokenizer
from mio.pretrained.release import FRAMES, read_processor, read_release
from mio.processor import Processor, Stream
from mio.sequence import ChatTemplate
from mio.tokenizers.seed import Decoded, SeedConfig, SeedNetwork, SeedTokenizer
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork, SpeechTokenizer
from mio.tokenizers.text import TextTokenizer
from mio.tokenizers.video import VideoTokenizer
from mio.types import (
    Audio,
    DataError,
    Document,
    Encoded,
    Image,
    Media,
    MediaFile,
    Message,
    MioError,
    MissingError,
    Modality,
    Part,
    ResourceError,
    Role,
    Text,
    Tokenizer,
    Turns,
    Video,
)
from mio.vocab import Vocabulary


@dataclass(frozen=True)
class ModelConfig:
    """config.json of a model folder.

    `decoding`: default sampling by row name and "text"; or `profile`: the name of one in decoding.profiles. `stop`: the
    token that ends answers, where it is not the end of the turn for conversations and that of the text for documents.
    `released`: folder or id of the release whose tokenizers these are, where the model has none of its own.
    """

    name: str
    backbone: BackboneConfig
    rows: tuple[Modality, ...]
    systems: dict[str, str]
    decoding: dict[str, Sampling] = field(default_factory=dict)
    frames: int = 4  # of a clip
    fingerprint: str = ""  # of the processor that made the training data
    profile: str = ""
    stop: str = ""
    released: str = ""


Content = str | Part | Sequence[str | Part]


def _parts(content: Content) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    if isinstance(content, Sequence):
        return tuple(p for c in content for p in _parts(c))
    return (content,)


def _message(role: Role, content: tuple[Content, ...]) -> Message:
    return Message(role, tuple(p for c in content for p in _parts(c)))


def user(*content: Content) -> Message:
    """A user turn of texts and media, in the order given."""
    return _message("user", content)


def assistant(*content: Content) -> Message:
    """An earlier answer, for conversations and examples in context."""
    return _message("assistant", content)


def image(source: Path | str | bytes) -> Image:
    return read_image(source)


def audio(source: Path | str | bytes) -> Audio:
    return read_audio(source)


def video(source: Path | str | bytes) -> Video:
    return read_video(source)


def attachment(path: Path) -> MediaFile:
    """A file of any kind the model may read, recognised by its bytes."""
    return MediaFile(path, sniff(path))


@dataclass(frozen=True)
class Reply:
    """An answer: its parts in order, the ids it was made of, a sentence for every span that could not be used, and what
    ended it before its time."""

    parts: tuple[Text | Media, ...]
    ids: tuple[int, ...]
    faults: tuple[str, ...] = ()
    error: MioError | None = None

    def checked(self) -> Reply:
        """Itself, where nothing went wrong; otherwise raises its error."""
        if self.error:
            raise self.error
        return self

    @property
    def text(self) -> str:
        return "".join(p.text for p in self.parts if isinstance(p, Text)).strip()

    def media(self, kind: type[Image] | type[Audio] | type[Video]) -> list[Any]:
        return [p for p in self.parts if isinstance(p, kind)]

    def save(self, folder: Path, stem: str = "part") -> list[Path]:
        """Write every medium of the answer; returns the files, in order."""
        folder.mkdir(parents=True, exist_ok=True)
        found = [(n, p) for n, p in enumerate(self.parts) if not isinstance(p, Text)]
        return [write_media(part, folder / f"{stem}-{number}") for number, part in found]


@dataclass(frozen=True)
class Writer:
    """A kind of media's default format."""

    suffix: str
    write: Callable[[Any, Path], None]


WRITERS: dict[type, Writer] = {
    Image: Writer(".png", write_image),
    Audio: Writer(".wav", write_audio),
    Video: Writer(".mp4", write_video),
}


def write_media(media: Media, stem: Path) -> Path:
    """Write a medium in its kind's default format: PNG, WAV, MP4, or what `WRITERS` says."""
    writer = WRITERS[type(media)]
    path = stem.with_name(stem.name + writer.suffix)
    writer.write(media, path)
    return path


@dataclass(frozen=True)
class Job:
    """One question for `Model.run`: what to continue, what may come out, and how to decode it.

    `sampling`, by row name and "text", goes before `profile`, and that before the model's own way. `shape`: what each
    text part must be.
    """

    content: Turns | Document
    out: str = "text"
    tokens: int = 400
    frames: int = 0
    seed: int = 0
    mode: str = "std"
    sampling: Mapping[str, Sampling] = field(default_factory=dict)
    profile: str = ""
    shape: Shape | None = None


class Model:
    """A loaded model. Every answer decodes: the grammar lets nothing else through."""

    def __init__(self, config: ModelConfig, backbone: Backbone, processor: Processor) -> None:
        self.config, self.backbone, self.processor = config, backbone.eval(), processor
        vocab = processor.vocab
        self._rules = [self._rule(row) for row in config.rows if row.size]
        self._text = np.array([i for i in range(vocab.text_size) if i not in vocab.control_ids])

    @cached_property
    def _spelling(self) -> Spelling:
        texts, vocab = self.processor.text, self.processor.vocab
        return Spelling([b"" if n in vocab.control_ids else d for n, d in enumerate(texts.spelled())], texts.encode)

    def constraint(self, shape: Shape | None) -> Constraint | None:
        """What lets only text of this shape through; errors as decoding.constraint.constraint."""
        return None if shape is None else constraint(self._spelling, shape)

    def _rule(self, row: Modality) -> SpanRule:
        vocab = self.processor.vocab
        return SpanRule(row.name, *vocab.bounds(row.name), vocab.level_ids(row.name), row.output_layout, row.steps)

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("text", *(row.name for row in self.config.rows))

    def chat(
        self,
        *content: Content | Message,
        out: str = "text",
        system: str = "std",
        tokens: int = 400,
        seed: int = 0,
        sampling: Mapping[str, Sampling] | None = None,
        profile: str = "",
        shape: Shape | None = None,
    ) -> Reply:
        """Answer a conversation; strings and media count as one user turn.

        `out`: what is in the answer: one of `modalities`; several with commas ("text,image": interleaved as the model
        likes); or a pattern of them such as "(text image){4}" (decoding/pattern.py).
        `system`: a mode of the template. `tokens`: most ids of the answer. `seed`: the same one, the same answer.
        `profile`: how to decode, by name: "paper", "release", or one of its tasks such as "release/tts".
        `shape`: what each text in the answer must be: `Schema.of({"type": "object"})` or `Regex("[0-9]+")`. No budget
        cuts it: where few tokens are left, it takes a short way to its end.

        Raises:
            MioError: an output this model does not speak, or a conversation longer than its window.
            DataError: an attachment that cannot be read.
        """
        job = Job(_turns(content), out, tokens, 0, seed, system, sampling or {}, profile, shape)
        return self.run([job])[0].checked()

    def complete(
        self,
        *content: Content,
        out: str = "text",
        tokens: int = 400,
        seed: int = 0,
        sampling: Mapping[str, Sampling] | None = None,
        profile: str = "",
        shape: Shape | None = None,
    ) -> Reply:
        """Continue a document, without any template, as a base model does. Media in it count as input."""
        parts = tuple(p for c in content for p in _parts(c))
        document = Document(parts, frozenset(range(len(parts))))
        return self.run([Job(document, out, tokens, 0, seed, "std", sampling or {}, profile, shape)])[0].checked()

    def stream(
        self,
        *content: Content | Message,
        out: str = "text",
        system: str = "std",
        tokens: int = 400,
        seed: int = 0,
        sampling: Mapping[str, Sampling] | None = None,
        profile: str = "",
        shape: Shape | None = None,
    ) -> Iterator[Text | Media]:
        """As `chat`, part by part: text as it grows, images as soon as they are whole, speech in chunks that join
        without a seam (`AudioChunk`). Beams end before they come."""
        job = Job(_turns(content), out, tokens, 0, seed, system, sampling or {}, profile, shape)
        request, stream = self.request(job), Stream(self.processor)
        for _, id in generate(self.backbone, [request]):
            yield from stream.take(id)
        if request.error:
            raise request.error
        yield from stream.end()

    def run(self, jobs: Sequence[Job]) -> list[Reply]:
        """Answer many jobs together. One that cannot be answered has an `error` in its reply; others are none the
        worse."""
        asked = [self._asked(job) for job in jobs]
        for _ in generate(self.backbone, [r for r in asked if isinstance(r, Request)]):
            pass
        return [self._reply(request, job) for request, job in zip(asked, jobs, strict=True)]

    def _asked(self, job: Job) -> Request | MioError:
        try:
            return self.request(job)
        except ResourceError:
            raise
        except MioError as error:
            return error

    def request(self, job: Job) -> Request:
        """What the engine is asked for a job.

        Raises:
            MioError: an output this model does not speak, one that the tokens or the window cannot hold, a bad value.
        """
        turns = isinstance(job.content, Turns)
        prompt = self._prompt(job.content, job.mode)
        specials = self.processor.vocab.specials
        stop = self.processor.vocab.id(self.config.stop or (specials.im_end if turns else specials.eos))
        room = self.config.backbone.positions - len(prompt)
        if room < 40:
            positions = self.config.backbone.positions
            raise MioError(f"The conversation takes {len(prompt)} of {positions} positions.", fix="Shorten it.")
        tokens = min(job.tokens, room)
        if job.shape is not None and "text" not in self.kinds(job.out):
            raise MioError(f"A shape is for text, of which {job.out!r} has none.", fix="Leave it out, or ask for text.")
        shaped = self.constraint(job.shape)
        limits = Limits(tokens, self._pattern(job), steps=max(tokens, 1), text=shaped)
        grammar = Grammar(self._rules, self._text, stop, limits)
        own = self.decoding(job.out, job.profile)
        request = Request(prompt, grammar, {p: job.sampling.get(p, own[p]) for p in own}, job.seed)
        request.plain = self._prompt(_unasked(job.content), job.mode) if request.guided else ()
        return request

    def _prompt(self, content: Turns | Document, mode: str) -> list[int]:
        turns = isinstance(content, Turns)
        ids: list[int] = self.processor.sequence(content, mode=mode, open_turn=turns).ids.tolist()
        return ids if turns else ids[:-1]  # without the end of the document

    def kinds(self, out: str) -> tuple[str, ...]:
        """The modalities that `out` names.

        Raises:
            MioError: one that this model does not speak.
        """
        for name in names(out):
            if name not in self.modalities:
                raise MioError(f"This model cannot answer in {name!r}.", fix=suggest(name, self.modalities))
        return names(out)

    def decoding(self, out: str, profile: str = "") -> dict[str, Sampling]:
        """How answers of these kinds are decoded, by row name and "text": in a profile's way, or in the model's own.

        Raises:
            MioError: no such kind, profile, or task in it.
        """
        wanted, profile = self.kinds(out), profile or self.config.profile
        places = {self.processor.vocab.base(name).name for name in wanted if name != "text"}
        places |= {"text"} if "text" in wanted or len(wanted) > 1 else set()  # where kinds are chosen between
        if profile:
            return dict.fromkeys(sorted(places), setting(profile, wanted))
        return {place: self.config.decoding.get(place, GREEDY) for place in sorted(places)}

    def _pattern(self, job: Job) -> Pattern:
        """Alone, a modality must appear once (a clip: its number of frames; text without a shape may be empty); beside
        others, with commas, it may."""
        vocab, frames = self.processor.vocab, job.frames or self.config.frames
        meaning: dict[str, Pattern] = {"text": Repeat(One("text"), 1, None)}
        for row in self.config.rows:
            span = One(vocab.base(row.name).name)
            meaning[row.name] = Repeat(span, frames, frames) if row.spans_of else span
        plain = [w.strip() for w in job.out.split(",")]
        if (plain == ["text"] and job.shape is None) or (len(plain) > 1 and meaning.keys() >= set(plain)):
            rows = (vocab.base(name).name for name in plain if name != "text")
            return any_order(dict.fromkeys(rows, (0, 8)), "text" in plain)
        return read(job.out, meaning)

    def _reply(self, request: Request | MioError, job: Job) -> Reply:
        if isinstance(request, MioError):
            return Reply((), (), error=request)
        ids = request.out
        rows = [r.name for r in self.config.rows if r.spans_of and r.name in self.kinds(job.out)]
        parsed = self.processor.parse(np.array(ids, np.int64), gather=rows[0] if rows else "")
        decoded = [self.decoded(part) for part in parsed.parts]
        faults = (*parsed.faults, *(d for d in decoded if isinstance(d, str)))
        return Reply(tuple(d for d in decoded if not isinstance(d, str)), tuple(ids), faults, request.error)

    def decoded(self, part: Text | Encoded) -> Text | Media | str:
        """A part as a user sees it, or in words why it cannot be had; the rest of the answer is none the worse."""
        if isinstance(part, Text):
            return part
        try:
            return self.processor.media(part.modality, part.codes)
        except (DataError, MissingError) as error:
            return f"{part.modality}: {error} {error.fix}".strip()

    def release(self) -> None:
        """Free the media tokenizers that are built on first use, until they are used again."""
        for tokenizer in self.processor.tokenizers.values():
            if isinstance(tokenizer, LazyTokenizer):
                tokenizer.release()


def _unasked(content: Turns | Document) -> Turns | Document:
    """The same without what is asked: guidance leads away from its answer."""
    if isinstance(content, Document):
        return Document(())
    return Turns((*(m for m in content.messages if m.role == "system"), Message("user", ())))


def _turns(content: Sequence[Content | Message]) -> Turns:
    """Messages as they are; loose content between them becomes user turns."""
    messages: list[Message] = []
    loose: list[Any] = []
    for piece in (*content, None):
        if isinstance(piece, Message) or piece is None:
            messages += [user(*loose)] if loose else []
            loose = []
            messages += [piece] if piece is not None else []
        else:
            loose.append(piece)
    if not messages:
        raise MioError("An empty conversation has no answer.", fix="Give a prompt, a file or both.")
    return Turns(tuple(messages))


# ------------------------------------------------------------------------------------------------------ folders


def load_processor(folder: Path, rows: tuple[Modality, ...], systems: Mapping[str, str], frames: int) -> Processor:
    """The text tokenizer and whatever media tokenizers lie in a model or run folder."""
    text = TextTokenizer.load(folder / "text" / "tokenizer.json")
    vocab = vocabulary(folder, rows, text)
    return Processor(vocab, text, load_tokenizers(folder, rows, frames), ChatTemplate(dict(systems)))


def load_tokenizers(folder: Path, rows: Sequence[Modality], frames: int) -> dict[str, Tokenizer]:
    """The media tokenizers of these rows; a row of spans after the one whose spans they are.

    Raises:
        MissingError: nobody said how a row's tokenizer is built.
    """
    tokenizers: dict[str, Any] = {}
    for row in rows:
        if row.name not in BUILDERS:
            fix = "Import the file that adds this modality first, or update mio."
            raise MissingError(f"There is no tokenizer for {row.name!r}.", at=str(folder), fix=fix)
        tokenizers[row.name] = BUILDERS[row.name](folder, row, tokenizers, frames)
    return tokenizers


def vocabulary(folder: Path, rows: tuple[Modality, ...], text: TextTokenizer) -> Vocabulary:
    """Text ids, then tokens that a base model has beyond them, then our own."""
    names = {int(id): token for id, token in read_json(folder / "text" / "config.json").get("names", {}).items()}
    tokens = [names.get(id, f"text{id}") for id in range(max(text.size, 1 + max(names, default=0)))]
    return Vocabulary.build(tokens[: text.size], rows, further=tokens[text.size :])


def _image(folder: Path, row: Modality, others: Mapping[str, Any], frames: int) -> SeedTokenizer:
    network = SeedNetwork(from_dict(SeedConfig, read_json(folder / "image" / "config.json")))
    load_state(network, load_tensors(folder / "image" / "model.safetensors"), str(folder / "image"))
    decoder = PixelDecoder(from_dict(PixelDecoderConfig, read_json(folder / "image" / "pixels" / "config.json")))
    load_state(decoder, load_tensors(folder / "image" / "pixels" / "model.safetensors"), str(folder / "image"))
    decoder.eval()

    def render(decoded: Decoded) -> torch.Tensor:
        out: torch.Tensor = decoder(decoded.latents, decoded.embedding)
        return out

    return SeedTokenizer(network, row, render)


def _speech(folder: Path, row: Modality, others: Mapping[str, Any], frames: int) -> SpeechTokenizer:
    network = SpeechNetwork(from_dict(SpeechConfig, read_json(folder / "speech" / "config.json")))
    load_state(network, load_tensors(folder / "speech" / "model.safetensors"), str(folder / "speech"))
    return SpeechTokenizer(network, row)


def _video(folder: Path, row: Modality, others: Mapping[str, Any], frames: int) -> VideoTokenizer:
    return VideoTokenizer(others[row.spans_of], row, frames)


Builder = Callable[[Path, Modality, Mapping[str, Any], int], Tokenizer]  # of a folder and a row
BUILDERS: dict[str, Builder] = {"image": _image, "speech": _speech, "video": _video}


def load(
    source: Path | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    bits: Bits | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Model:
    """Load a model: a folder of ours, a released one, or the id of one; without argument, the one that ships.

    `dtype`: of the language model's weights; by default fp32 for ours and bf16 for released ones. `bits`: 4 or 8 for
    its linear layers. `revision`: a branch, tag or commit of an id. `offline`: take what is on this machine, and never
    ask the network.

    Raises:
        MissingError: files are not there; of a released model all of them are named with their sizes. DataError: a file
        is damaged, or parts do not fit together.
    """
    folder = _folder(source, revision, offline)
    if is_released(folder):
        return _load_released(folder, str(source), dtype or torch.bfloat16, bits)
    return _load_ours(folder, dtype or torch.float32, bits, offline)


def load_speaker(source: Path | str | None = None, *, revision: str | None = None, offline: bool = False) -> Processor:
    """Vocabulary and tokenizers of a model, without its language model: all that media <-> ids take.

    A release's are in fp32, as for training. Arguments and errors as `load`.
    """
    folder = _folder(source, revision, offline)
    if is_released(folder):
        return read_processor(folder, torch.float32)
    return _speaker(folder, from_dict(ModelConfig, read_json(folder / "config.json")), offline)


def _folder(source: Path | str | None, revision: str | None, offline: bool) -> Path:
    shipped = Path(str(files("mio") / "assets" / "tiny"))
    return shipped if source is None else locate(source, revision=revision, offline=offline)


def _load_released(folder: Path, name: str, dtype: torch.dtype, bits: Bits | None) -> Model:
    """Answers are decoded as in the paper: the published script takes beams for images, too."""
    found = read_release(folder, dtype, bits, name=Path(name).name)
    held, backbone = found.processor, found.backbone
    systems = dict(held.template.systems)
    config = ModelConfig(
        found.name, backbone.config, held.vocab.rows, systems, frames=FRAMES, profile="paper", stop=found.stop
    )
    return Model(config, backbone, held)


def _load_ours(folder: Path, dtype: torch.dtype, bits: Bits | None, offline: bool) -> Model:
    config = from_dict(ModelConfig, read_json(folder / "config.json"))
    processor = _speaker(folder, config, offline)
    backbone = Backbone(config.backbone)
    tensors = load_tensors(folder / "model.safetensors")
    if config.backbone.tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    load_state(backbone, tensors, str(folder))
    if bits is not None:
        quantize_linears(backbone, bits)
    return Model(config, backbone.to(dtype), processor)


def _speaker(folder: Path, config: ModelConfig, offline: bool) -> Processor:
    """Raises: DataError where the tokenizers are not those that the model was trained with."""
    if config.released:
        processor = read_processor(locate(config.released, offline=offline), torch.float32)
    else:
        processor = load_processor(folder, config.rows, config.systems, config.frames)
    require(config.fingerprint, processor.fingerprint, str(folder), "Put back the tokenizers that came with the model.")
    return processor


def save(folder: Path, config: ModelConfig, backbone: Backbone, parts: Path, extra: Mapping[str, str]) -> None:
    """Write a model folder in bf16 from a trained backbone and the `parts` (text, image, speech) of a run.

    `extra`: further text files by name, such as the model card.
    """

    def write(staging: Path) -> None:
        state = backbone.state_dict()
        if config.backbone.tied:
            del state["lm_head.weight"]
        save_module(staging, to_dict(config), compact(state))
        for part in () if config.released else ("text", *(row.name for row in config.rows if row.size)):
            shutil.copytree(parts / part, staging / part, ignore=shutil.ignore_patterns(MANIFEST))
        for name, text in extra.items():
            (staging / name).write_text(text, encoding="utf-8")

    commit(folder, write)
