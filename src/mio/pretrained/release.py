"""The released MIO-7B as one folder: its language model, and media tokenizers that are built when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mio.models.backbone import Backbone
from mio.models.quantized import Bits
from mio.pretrained.inventory import UNCLIP, demand_language
from mio.pretrained.language import END_OF_TURN, TEXT, read_language, stop_token
from mio.pretrained.lazy import LazyTokenizer
from mio.pretrained.llama import read_backbone
from mio.pretrained.seed import FILES as SEED_FILES
from mio.pretrained.seed import load_seed
from mio.pretrained.speech import FILES as SPEECH_FILES
from mio.pretrained.speech import load_speech
from mio.pretrained.unclip import UnClip
from mio.processor import Processor
from mio.sequence import ChatTemplate
from mio.tokenizers.seed import SeedTokenizer
from mio.tokenizers.speech import SpeechTokenizer
from mio.tokenizers.video import Choice, VideoTokenizer, scene_middles, uniform_frames
from mio.types import DataError, MissingError, Modality, Tokenizer, Video
from mio.vocab import Vocabulary

Interpolation = Literal["bilinear", "bicubic"]

SEED, SPEECH = "seed-tokenizer-2", "SpeechTokenizer"
FRAMES = 8  # of a clip that is written; read ones have up to 19
SCENE = 15  # frames of the shortest scene: PySceneDetect's default, which the script leaves


@dataclass(frozen=True)
class Released:
    """A released model. `stop`: the token at which every answer ends, whether a turn's or a document's."""

    name: str
    backbone: Backbone
    processor: Processor
    stop: str


def read_release(
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    bits: Bits | None = None,
    interpolation: Interpolation | None = None,
    name: str = "",
) -> Released:
    """Language model and text tokenizer now; image, speech and pixel models at their first use.

    `dtype`: of the language model's floats; the image tokenizer takes fp32 beside fp32, else fp16 as in the release.
    `interpolation`: how images are resized, bilinear unless told. `name`: the model's id, by default its folder's name.

    Raises:
        MissingError: files of the language model are absent, all of them named with their sizes, or sentencepiece is.
        DataError: files do not fit together.
    """
    demand_language(folder)
    if not (folder / TEXT).is_file():  # but a tokenizer.json, as stock folders have
        fix = f"Give a release of MIO or a folder that mio made; or grow one out of it: mio train tiny --init {folder}"
        raise MissingError(f"This is a language model, but not MIO: it has no {TEXT}.", at=str(folder), fix=fix)
    processor = read_processor(folder, dtype, interpolation)
    stop = processor.vocab.tokens[stop_token(folder)]
    return Released(name or folder.name, read_backbone(folder, dtype, bits), processor, stop)


def read_processor(
    folder: Path, dtype: torch.dtype = torch.bfloat16, interpolation: Interpolation | None = None
) -> Processor:
    """Vocabulary and tokenizers of a release, without its language model. Arguments and errors as `read_release`."""
    text, vocab = read_language(folder)
    seed, speech = _tokenizers(folder, vocab, dtype, interpolation)
    instruct = stop_token(folder) == END_OF_TURN
    choice: Choice = "scenes" if instruct else "uniform"  # the base model's examples force the latter
    video = ReleasedVideoTokenizer(seed, vocab.row("video"), choice=choice)
    return Processor(vocab, text, {"image": seed, "speech": speech, "video": video}, ChatTemplate(tokens=True))


def _tokenizers(
    folder: Path, vocab: Vocabulary, dtype: torch.dtype, interpolation: Interpolation | None
) -> tuple[LazyTokenizer, LazyTokenizer]:
    image, speech = vocab.row("image"), vocab.row("speech")
    half = torch.float32 if dtype == torch.float32 else torch.float16
    build = partial(_image, folder, image, half, interpolation)
    seed = _lazy(image, build, folder / SEED, SEED_FILES, {"dtype": str(half), "interpolation": interpolation or ""})
    sound = _lazy(speech, partial(_speech, folder, speech), folder / SPEECH, SPEECH_FILES, {})
    return seed, sound


def _lazy(
    row: Modality, build: Callable[[], Tokenizer], folder: Path, files: Mapping[str, str], settings: Mapping[str, str]
) -> LazyTokenizer:
    return LazyTokenizer(row, build, [folder / name for name in files], settings)


def _image(folder: Path, row: Modality, dtype: torch.dtype, interpolation: Interpolation | None) -> SeedTokenizer:
    network, _ = load_seed(folder / SEED, dtype, interpolation)
    _demand(row, (1, network.config.codebook_size, network.config.queries), folder / SEED)
    return SeedTokenizer(network, row, UnClip(folder / UNCLIP))


def _speech(folder: Path, row: Modality) -> SpeechTokenizer:
    network = load_speech(folder / SPEECH)
    levels = min(network.config.levels, row.codebooks)  # MIO drops the last four of eight
    _demand(row, (levels, network.config.codebook_size, row.steps), folder / SPEECH)
    return SpeechTokenizer(network, row)


def _demand(row: Modality, found: tuple[int, int, int], at: Path) -> None:
    """Refuse a tokenizer whose codes are not the language model's."""
    own = (row.codebooks, row.codebook_size, row.steps)
    if own != found:
        what = f"It has (codebooks, codes, codes a span) {found}; the language model knows {own}."
        raise DataError(what, at=str(at), fix="Put back the tokenizer that came with the model.")


@dataclass(frozen=True)
class ReleasedVideoTokenizer(VideoTokenizer):
    """Where frames are chosen by "scenes" and there are cuts, one of each scene; else every nth, as the script does.

    `budget`: most scenes that are shown; the script shows them all.
    """

    budget: int = 19

    def frames(self, video: Video) -> NDArray[np.int64]:
        middles = scene_middles(video.frames, shortest=SCENE) if self.choice == "scenes" else np.array([], np.int64)
        if not len(middles):
            return released_frames(len(video.frames))
        return middles[uniform_frames(len(middles), self.budget)]

    def fingerprint(self) -> str:
        return f"{self.image.fingerprint()}-tenths" + ("-scenes" if self.choice == "scenes" else "")


def released_frames(count: int) -> NDArray[np.int64]:
    """Every nth frame number, n a tenth of the clip's length: up to 19, in time order.

    The published script returns them as the file system lists them.
    """
    return np.arange(0, count, max(1, count // 10))
