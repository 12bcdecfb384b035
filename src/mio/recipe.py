"""A recipe is one frozen dataclass tree; `run` takes it from raw files to a model folder, stage by stage.

Every stage leaves a finished folder, and a stage whose folder is there is not run again: killing and repeating the
command resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mio.checkpoint import commit, compact, load_state, load_tensors, save_module, write_json
from mio.config import suggest, to_dict
from mio.data.loader import Loader
from mio.data.prepare import Picture, SceneMaker, encode_items, load_clips, load_pictures, split, text_of
from mio.data.sources import CORPUS, Item, read_corpus
from mio.data.store import Record, Store, write_store
from mio.data.tasks import INSTRUCT, PRETRAINING, Shelf
from mio.decoding.sampling import Sampling
from mio.evals.judges import Judge, as_clips, as_pictures, as_sounds, train_judge
from mio.evals.metrics import Share, exact
from mio.evals.tasks import Judges, Score, measure
from mio.layers import Batch
from mio.media import resize
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.decoders import PixelDecoder, PixelDecoderConfig
from mio.models.teachers import SpeechTeacher, TextTower
from mio.pipeline import ModelConfig, load, load_processor, save
from mio.processor import Processor, open_media
from mio.tokenizers.seed import SeedConfig, SeedNetwork, start_from_places
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork
from mio.tokenizers.text import TextTokenizer
from mio.tokenizers.video import uniform_frames
from mio.train.image import Aligner, AlignObjective, ImageTrainer, Pictures, QuantizeObjective, embed_all
from mio.train.loop import Fit, fit
from mio.train.objectives import next_token_loss
from mio.train.speech import SYMBOLS, Clips, SpeechObjective, SpeechTrainer, TeacherObjective
from mio.types import Image, MioError, Modality, Sample, Video
from mio.vocab import Vocabulary


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
    """One stretch of training the language model. `shares`: tokens of each task; tasks not named stay out."""

    name: str
    store: str  # "pretrain" or "instruct"
    shares: dict[str, float]
    fit: Fit
    tokens: int = 4096  # of a batch


@dataclass(frozen=True)
class Recipe:
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
    frames: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """A recipe, its corpus folder and where its results go."""

    recipe: Recipe
    corpus: Path
    out: Path

    @property
    def metrics(self) -> Path:
        return self.out / "metrics.jsonl"

    def items(self) -> tuple[list[Item], list[Item]]:
        """Training and validation items."""
        data = self.recipe.data
        return split(read_corpus(self.corpus, CORPUS), data.held_out, data.split_seed)

    def scene_maker(self, train: list[Item]) -> SceneMaker:
        data = self.recipe.data
        return SceneMaker.of(train, data.held_out.get("scenes", 0.0), data.split_seed)

    def done(self, stage: str) -> bool:
        return (self.out / stage / "config.json").is_file()


def text_stage(run: Run) -> None:
    """Learn the BPE on every text of the training split."""
    train, _ = run.items()
    tokenizer = TextTokenizer.train([text_of(i) for i in train], run.recipe.text.size)

    def write(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        write_json(folder / "config.json", {"size": tokenizer.size})

    commit(run.out / "text", write)


def _pictures(run: Run, text: TextTokenizer) -> Pictures:
    """Training pictures of the corpus, generated scenes, and their captions as padded text ids."""
    c, train = run.recipe.image, run.items()[0]
    pictures = load_pictures(train, c.network.image_size, frames=4)
    maker = run.scene_maker(train)
    for number, scene in enumerate(maker.scenes(run.recipe.data.scenes)):
        pixels = resize(maker.draw(scene, number), c.network.image_size).pixels
        pictures.append(Picture(pixels, scene.caption, "scenes"))
    captions = sorted({p.caption for p in pictures if p.caption})
    row = {caption: number for number, caption in enumerate(captions)}
    ids = [text.encode(caption)[:24] for caption in captions]
    padded = np.full((len(ids), 24), -1, np.int64)
    for line, encoded in zip(padded, ids, strict=True):
        line[: len(encoded)] = encoded
    return Pictures(
        np.stack([p.pixels for p in pictures]),
        np.array([row.get(p.caption, -1) for p in pictures]),
        padded,
        shares([p.source for p in pictures], c.share),
    )


def shares(sources: list[str], wanted: dict[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Chance of every example so that each source gets its wanted share (1 if not named), split evenly inside it."""
    counts = {s: sources.count(s) for s in set(sources)}
    weight = np.array([wanted.get(s, 1.0) / counts[s] for s in sources])
    return weight / weight.sum()


def align_stage(run: Run) -> None:
    """SEED stage 1."""
    c = run.recipe.image
    text = TextTokenizer.load(run.out / "text" / "tokenizer.json")
    torch.manual_seed(run.recipe.seed)
    aligner = Aligner(SeedNetwork(c.network), text.size)
    start_from_places(aligner.network)
    objective = AlignObjective(_pictures(run, text), c.batch, run.recipe.seed, module=aligner)
    fit(objective, c.align, run.out / "work" / "align", "align", run.metrics)
    config = {"network": to_dict(c.network)}
    commit(run.out / "align", lambda folder: save_module(folder, config, aligner.state_dict()))


def image_stage(run: Run) -> None:
    """SEED stage 2 and the pixel decoder."""
    c = run.recipe.image
    text = TextTokenizer.load(run.out / "text" / "tokenizer.json")
    pictures = _pictures(run, text)
    aligner = Aligner(SeedNetwork(c.network), text.size).eval().requires_grad_(False)
    load_state(aligner, load_tensors(run.out / "align" / "model.safetensors"))
    teacher = embed_all(aligner, pictures.pixels)
    torch.manual_seed(run.recipe.seed)
    trainer = ImageTrainer(SeedNetwork(c.network), PixelDecoder(c.decoder), TextTower(text.size, c.network.embedding))
    trainer.network.load_state_dict(aligner.network.state_dict())
    trainer.text.load_state_dict(aligner.text.state_dict())
    objective = QuantizeObjective(pictures, c.batch, run.recipe.seed, module=trainer, teacher=teacher)
    fit(objective, c.quantize, run.out / "work" / "image", "image", run.metrics)

    def write(folder: Path) -> None:
        save_module(folder, to_dict(c.network), compact(trainer.network.state_dict()))
        (folder / "pixels").mkdir()
        save_module(folder / "pixels", to_dict(c.decoder), compact(trainer.decoder.state_dict()))

    commit(run.out / "image", write)


def _clips(run: Run) -> Clips:
    c = run.recipe.speech
    clips = load_clips(run.items()[0], c.network.sample_rate)
    share = shares([k.source for k in clips], c.share)
    return Clips([k.samples for k in clips], [k.text or None for k in clips], share)


def teacher_stage(run: Run) -> None:
    """The speech teacher, on transcribed clips."""
    c = run.recipe.speech
    torch.manual_seed(run.recipe.seed)
    teacher = SpeechTeacher(len(SYMBOLS), c.network.semantic_dimension)
    fit(
        TeacherObjective(teacher, _clips(run), 32, run.recipe.seed),
        c.teacher,
        run.out / "work" / "teacher",
        "teacher",
        run.metrics,
    )
    config = {"symbols": SYMBOLS, "width": c.network.semantic_dimension}
    commit(run.out / "teacher", lambda folder: save_module(folder, config, teacher.state_dict()))


def speech_stage(run: Run) -> None:
    """SpeechTokenizer, its level 0 distilled from the teacher."""
    c = run.recipe.speech
    teacher = SpeechTeacher(len(SYMBOLS), c.network.semantic_dimension).eval().requires_grad_(False)
    load_state(teacher, load_tensors(run.out / "teacher" / "model.safetensors"))
    torch.manual_seed(run.recipe.seed)
    trainer = SpeechTrainer(SpeechNetwork(c.network))
    objective = SpeechObjective(trainer, teacher, _clips(run), c.batch, run.recipe.seed)
    fit(objective, c.codec, run.out / "work" / "speech", "speech", run.metrics)
    config, state = to_dict(c.network), compact(trainer.network.state_dict())
    commit(run.out / "speech", lambda folder: save_module(folder, config, state))


def processor(run: Run) -> Processor:
    r = run.recipe
    return load_processor(run.out, r.rows, r.systems, r.frames)


def prepare_stage(run: Run) -> None:
    """Encode every medium once and render all samples of both kinds."""
    speaker, train = processor(run), run.items()[0]
    data, maker = run.recipe.data, run.scene_maker(train)
    made = [*maker.scene_items(data.scenes), *maker.edit_items(data.edits), *maker.clip_items(data.clips)]
    shelf = Shelf.of(encode_items([*train, *made], speaker), run.recipe.seed)
    for name, tasks in (("pretrain", PRETRAINING), ("instruct", INSTRUCT)):
        records = (record for task in tasks for record in _records(task, tasks[task](shelf), run, speaker))
        write_store(run.out / "prepare" / name, records, speaker.vocab)
    write_json(run.out / "prepare" / "config.json", {"vocabulary": speaker.vocab.fingerprint()})


def _records(task: str, samples: Iterator[Sample], run: Run, speaker: Processor) -> Iterator[Record]:
    """Rendered samples that fit the model's window; the others are counted on stderr."""
    long = 0
    for sample in samples:
        sequence = speaker.sequence(sample.content)
        if len(sequence) <= run.recipe.backbone.positions:
            yield Record(sequence, sample.id, task, sample.source, sample.license)
        else:
            long += 1
    if long:
        print(f"{task}: left out {long} samples longer than {run.recipe.backbone.positions} ids", file=sys.stderr)


@dataclass
class _LanguageObjective:
    module: Backbone
    loader: Loader
    kinds: tuple[str, ...]

    def batch(self, step: int) -> Batch:
        return self.loader.batch(step)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return next_token_loss(self.module, batch, self.kinds)


def language_stages(run: Run) -> None:
    """The stages of the language model, each starting from the weights of the one before."""
    r, speaker = run.recipe, processor(run)
    names, kinds = kinds_of(speaker.vocab)
    torch.manual_seed(r.seed)
    model = Backbone(replace(r.backbone, vocabulary=len(speaker.vocab)))
    for number, stage in enumerate(r.stages):
        folder = run.out / "stages" / stage.name
        if not (folder / "config.json").is_file():
            store = Store.open(run.out / "prepare" / stage.store, speaker.vocab)
            loader = Loader.plan(store, stage.shares, kinds, stage.tokens, stage.fit.steps, r.seed + number)
            fit(
                _LanguageObjective(model, loader, names),
                stage.fit,
                run.out / "work" / stage.name,
                stage.name,
                run.metrics,
            )
            state = model.state_dict()
            commit(folder, partial(save_module, config=to_dict(stage), state={k: v.clone() for k, v in state.items()}))
        load_state(model, load_tensors(folder / "model.safetensors"), str(folder))
    config = ModelConfig(r.name, model.config, r.rows, r.systems, r.decoding, r.frames, speaker.vocab.fingerprint())
    save(run.out / "model", config, model, run.out, {})


def kinds_of(vocab: Vocabulary) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of kinds of ids ("text", then the rows that own ids) and the kind of every id."""
    rows = [row.name for row in vocab.rows if row.size]
    kinds = np.zeros(len(vocab), np.int64)
    for number, name in enumerate(rows, 1):
        kinds[vocab.level_ids(name)] = number
    return ("text", *rows), kinds


def judges_stage(run: Run) -> Judges:
    """Classifiers trained on real media of the training split only; each resumes or loads what it has learned."""
    train = run.items()[0]
    pictures = load_pictures(
        [i for i in train if i.source in ("emoji", "digits")], run.recipe.image.network.image_size, 1
    )
    clips = [c for c in load_clips([i for i in train if i.source == "fsdd"], 16000)]
    speakers = [str(i.meta["speaker"]) for i in train if i.source == "fsdd"]
    films = [
        Film.of(i, run.recipe)
        for i in [
            *(i for i in train if i.source == "motion"),
            *run.scene_maker(train).clip_items(run.recipe.data.clips),
        ]
    ]

    def judge(name: str, inputs: Tensor, labels: list[str], steps: int) -> Judge:
        return train_judge(inputs, labels, steps, run.out / "judges" / name, name)

    emoji = [p for p in pictures if p.source == "emoji"]
    digits = [p for p in pictures if p.source == "digits"]
    sounds = as_sounds([c.samples for c in clips])
    return Judges(
        judge("picture", as_pictures([p.pixels for p in emoji]), [p.caption for p in emoji], 2000),
        judge("digit", as_pictures([p.pixels for p in digits]), [p.caption for p in digits], 400),
        judge("word", sounds, [c.text for c in clips], 600),
        judge("speaker", sounds, speakers, 600),
        judge("motion", as_clips([f.frames for f in films]), [f.motion for f in films], 500),
    )


@dataclass(frozen=True)
class Film:
    """The frames that the tokenizer would choose of a clip, and how it moves."""

    frames: NDArray[np.uint8]
    motion: str

    @staticmethod
    def of(item: Item, recipe: Recipe) -> Film:
        video = item.parts[0] if isinstance(item.parts[0], Video) else open_media(item.media("video")[0])
        assert isinstance(video, Video)
        chosen = uniform_frames(len(video.frames), recipe.frames)
        side = recipe.image.network.image_size
        return Film(np.stack([resize(Image(video.frames[i]), side).pixels for i in chosen]), str(item.meta["motion"]))


def measure_stage(run: Run) -> None:
    """Every direction on the validation split, and the judges on real validation media, into report.json."""
    judges = judges_stage(run)
    model, (train, val) = load(run.out / "model"), run.items()
    seen = [i for i in train if i.source == "emoji"]
    made = list(run.scene_maker(train).fresh(run.recipe.seed + 1).edit_items(200))
    splits = {"validation": val, "train": seen, "made": made}
    shelves = {n: Shelf.of(encode_items(i, model.processor), run.recipe.seed) for n, i in splits.items()}
    rows = [score.row() for score in measure(model, shelves, judges)]
    rows += [score.row() for score in judged_real(judges, val, run.recipe)]

    def write(folder: Path) -> None:
        write_json(folder / "report.json", rows)
        write_json(folder / "config.json", {"model": model.config.vocabulary})

    commit(run.out / "measure", write)


def judged_real(judges: Judges, val: list[Item], recipe: Recipe) -> Iterator[Score]:
    """How far the judges themselves can be trusted: their share right on real media of the validation split."""
    pictures = load_pictures([i for i in val if i.source in ("emoji", "digits")], recipe.image.network.image_size, 1)
    emoji = [p for p in pictures if p.source == "emoji" and p.caption in judges.picture.names]
    among = judges.picture.among(as_pictures([p.pixels for p in emoji]), [p.caption for p in emoji], 99)
    yield Score(
        "judge",
        "picture, real ones in a style not trained on, right of 100",
        Share(sum(among), len(among)),
        "validation",
        0,
    )
    digits = [p for p in pictures if p.source == "digits"]
    said = judges.digit.says(as_pictures([p.pixels for p in digits]))
    yield Score("judge", "handwritten digit, real ones", exact(said, [p.caption for p in digits]), "validation", 0)
    spoken = [i for i in val if i.source == "fsdd"]
    clips = load_clips(spoken, 16000)
    sounds = as_sounds([c.samples for c in clips])
    yield Score(
        "judge", "spoken digit, real ones", exact(judges.word.says(sounds), [c.text for c in clips]), "validation", 0
    )
    speakers = [str(i.meta["speaker"]) for i in spoken]
    yield Score("judge", "speaker, real ones", exact(judges.speaker.says(sounds), speakers), "validation", 0)
    films = [Film.of(i, recipe) for i in val if i.source == "motion"]
    moves = judges.motion.says(as_clips([f.frames for f in films]))
    yield Score("judge", "motion, real clips", exact(moves, [f.motion for f in films]), "validation", 0)


STAGES: dict[str, Callable[[Run], None]] = {
    "text": text_stage,
    "align": align_stage,
    "image": image_stage,
    "teacher": teacher_stage,
    "speech": speech_stage,
    "prepare": prepare_stage,
    "model": language_stages,
    "measure": measure_stage,
}


def run(recipe: Recipe, corpus: Path, out: Path, only: tuple[str, ...] = ()) -> None:
    """Run every stage that is not finished yet, in order; `only` names some of them.

    Raises:
        MioError: an unknown stage, or `out` holds another recipe's run.
    """
    for name in only:
        if name not in STAGES:
            raise MioError(f"No stage {name!r}.", fix=suggest(name, STAGES))
    job = Run(recipe, corpus, out)
    _claim(job)
    for name, stage in STAGES.items():
        if (not only or name in only) and not job.done(name):
            stage(job)


def _claim(job: Run) -> None:
    """Write the recipe into a new run folder, or check that it is the one that is there."""
    path = job.out / "recipe.json"
    job.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, to_dict(job.recipe))
