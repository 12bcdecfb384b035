"""Stages that train the tokenizers: text, SEED's two, the speech teacher, the speech codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mio.checkpoint import commit, compact, load_state, load_tensors, save_module, write_json
from mio.config import to_dict
from mio.data.prepare import Picture, load_clips, load_pictures, text_of
from mio.evals.exhibits import exhibits
from mio.media import resize
from mio.models.decoders import PixelDecoder
from mio.models.teachers import SpeechTeacher, TextTower
from mio.pretrained.base import read_text
from mio.recipe.tree import Run
from mio.tokenizers.seed import Decoded, SeedNetwork, SeedTokenizer, start_from_places
from mio.tokenizers.speech import SpeechNetwork, SpeechTokenizer
from mio.tokenizers.text import TextTokenizer
from mio.train.image import Aligner, AlignObjective, ImageTrainer, Pictures, QuantizeObjective, embed_all
from mio.train.loop import fit
from mio.train.speech import SYMBOLS, Clips, SpeechObjective, SpeechTrainer, TeacherObjective
from mio.train.watch import Samples, write_pictures, write_sounds
from mio.types import Modality


def text_stage(run: Run) -> None:
    """Learn the BPE on every text of the training split, or take over the base model's."""
    names: dict[int, str] = {}
    if run.base:
        tokenizer, names = read_text(run.base)
    else:
        tokenizer = TextTokenizer.train([text_of(i) for i in run.items()[0]], run.recipe.text.size)

    def write(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        write_json(folder / "config.json", {"size": tokenizer.size} | ({"names": names} if names else {}))

    commit(run.out / "text", write)


def _pictures(run: Run, text: TextTokenizer) -> Pictures:
    """Training pictures of the corpus, generated scenes, and their captions as padded text ids."""
    c, train = run.recipe.image, run.items()[0]
    pictures = load_pictures(train, c.network.image_size, frames=4)
    maker = run.scene_maker(train)
    for number, scene in enumerate(maker.scenes(c.scenes)):
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


def shares(sources: list[str], wanted: dict[str, float]) -> NDArray[np.float64]:
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
    objective = QuantizeObjective(
        pictures, c.batch, run.recipe.seed, module=trainer, teacher=teacher, samples=_seen(run, trainer)
    )
    fit(objective, c.quantize, run.out / "work" / "image", "image", run.metrics)

    def write(folder: Path) -> None:
        save_module(folder, to_dict(c.network), compact(trainer.network.state_dict()))
        (folder / "pixels").mkdir()
        save_module(folder / "pixels", to_dict(c.decoder), compact(trainer.decoder.state_dict()))

    commit(run.out / "image", write)


def _seen(run: Run, trainer: ImageTrainer) -> Samples | None:
    """Two held-out pictures of each source, if there are any."""

    def render(decoded: Decoded) -> torch.Tensor:
        out: torch.Tensor = trainer.decoder(decoded.latents, decoded.embedding)
        return out

    tokenizer = SeedTokenizer(trainer.network, _row(run, "image"), render)
    shown = exhibits("image", (), run.items()[1], 2).media
    pictures = [resize(p, run.recipe.image.network.image_size) for p in shown]
    return Samples(tokenizer, pictures, write_pictures) if pictures else None


def _row(run: Run, name: str) -> Modality:
    return next(row for row in run.recipe.rows if row.name == name)


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
    heard = exhibits("speech", (), run.items()[1], 2).media
    tokenizer = SpeechTokenizer(trainer.network, _row(run, "speech"))
    samples = Samples(tokenizer, heard, write_sounds) if heard else None
    objective = SpeechObjective(trainer, teacher, _clips(run), c.batch, run.recipe.seed, samples=samples)
    fit(objective, c.codec, run.out / "work" / "speech", "speech", run.metrics)
    config, state = to_dict(c.network), compact(trainer.network.state_dict())
    commit(run.out / "speech", lambda folder: save_module(folder, config, state))
