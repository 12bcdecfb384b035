"""The dataclass tree of a recipe, and the run of one: its corpus, its folder, its items."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mio.config import suggest
from mio.data.plan import Mix, Slot
from mio.data.prepare import SceneMaker, split
from mio.data.sources import CORPUS, Item, read_corpus
from mio.decoding.sampling import Sampling
from mio.models.backbone import BackboneConfig
from mio.models.decoders import PixelDecoderConfig
from mio.pretrained.hub import locate
from mio.pretrained.llama import Start, read_config
from mio.tokenizers.seed import SeedConfig
from mio.tokenizers.speech import SpeechConfig
from mio.train.gauge import Gauge
from mio.train.loop import Fit
from mio.types import MioError, Modality

TOKENIZERS = ("text", "align", "image", "teacher", "speech")  # stages that make them


@dataclass(frozen=True)
class DataConfig:
    """`held_out`: share of each source's groups kept for validation. `scenes`, `clips`: how many are generated."""

    held_out: dict[str, float] = field(default_factory=dict)
    split_seed: int = 0
    scenes: int = 4000
    edits: int = 1500
    clips: int = 1500


@dataclass(frozen=True)
class TextConfig:
    size: int = 2048


@dataclass(frozen=True)
class ImageConfig:
    network: SeedConfig
    decoder: PixelDecoderConfig
    align: Fit
    quantize: Fit
    batch: int = 64
    scenes: int = 4000  # how many of the generated ones are among its pictures
    share: dict[str, float] = field(default_factory=dict)  # of each source among drawn pictures


@dataclass(frozen=True)
class SpeechStageConfig:
    network: SpeechConfig
    teacher: Fit
    codec: Fit
    batch: int = 16
    share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One stretch of training the language model. `shares`: tokens of each "task" or "task/source"; those not named
    stay out. `slots`: instead of shares, kinds of data that take turns, each with packs of its own and shares in them.
    `weights`: of a target's loss by kind,
    "text" or a row's name; 1 for those not named. `gauge`: what is watched on held-out samples meanwhile."""

    name: str
    store: str  # "pretrain", "instruct", or the path of another that the run's tokenizers made
    shares: dict[str, float]
    fit: Fit
    tokens: int = 4096  # of a pack; `fit.parts` packs make a batch
    weights: dict[str, float] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    gauge: Gauge = field(default_factory=Gauge)

    def mix(self, seed: int, window: int) -> Mix:
        """What the packs are made of, for a model that sees `window` ids."""
        return Mix(self.slots or {"all": Slot(1, self.shares)}, self.tokens, seed, window)


@dataclass(frozen=True)
class Recipe:
    """`init`: a Hugging Face folder or id of the Llama family to start the language model from. Its shape and its text
    tokenizer then stand in for `backbone` and `text`; `new_rows` says how rows of new ids start. `released`: folder or
    id of a MIO release, whose vocabulary and tokenizers are taken, so that none are trained."""

    name: str
    data: DataConfig
    text: TextConfig
    image: ImageConfig
    speech: SpeechStageConfig
    rows: tuple[Modality, ...]
    systems: dict[str, str]
    backbone: BackboneConfig
    stages: tuple[Stage, ...]
    decoding: dict[str, Sampling] = field(default_factory=dict)
    judges: dict[str, int] = field(default_factory=dict)  # training steps of each classifier that measures
    frames: int = 4
    seed: int = 0
    released: str = ""
    init: str = ""
    new_rows: Start = "mean"

    def __post_init__(self) -> None:
        kinds = ("text", *(row.name for row in self.rows if row.size))
        for stage in self.stages:
            if bool(stage.shares) == bool(stage.slots):
                fix = "Give `shares` of tokens, or `slots` of packs with shares in each."
                raise MioError("A stage needs one mixture.", at=f"stages.{stage.name}", fix=fix)
            for kind in stage.weights.keys() - set(kinds):
                raise MioError(f"No kind of id {kind!r}.", at=f"stages.{stage.name}.weights", fix=suggest(kind, kinds))


@dataclass(frozen=True)
class Run:
    """A recipe, its corpus folder and where its results go. `workers`: processes that share the cores.
    `sharded`: ranks of the language model hold parts of it each, not the whole."""

    recipe: Recipe
    corpus: Path
    out: Path
    workers: int = 1
    sharded: bool = False

    @property
    def threads(self) -> int:
        """Cores of each worker."""
        return max(1, (os.cpu_count() or 1) // self.workers)

    @property
    def metrics(self) -> Path:
        return self.out / "metrics.jsonl"

    @cached_property
    def base(self) -> Path | None:
        """The folder that the language model starts from, downloaded where it is an id."""
        return locate(self.recipe.init) if self.recipe.init else None

    @property
    def backbone(self) -> BackboneConfig:
        """The language model's shape, but for its number of ids."""
        return read_config(self.base) if self.base else self.recipe.backbone

    def items(self) -> tuple[list[Item], list[Item]]:
        """Training and validation items."""
        data = self.recipe.data
        return split(read_corpus(self.corpus, CORPUS), data.held_out, data.split_seed)

    def scene_maker(self, train: list[Item]) -> SceneMaker:
        data = self.recipe.data
        return SceneMaker.of(train, data.held_out, data.split_seed)

    def done(self, stage: str) -> bool:
        """A released tokenizer needs no stage."""
        if self.recipe.released and stage in TOKENIZERS:
            return True
        return (self.out / stage / "config.json").is_file()
