"""Models of others that look at made pictures, listen to made speech, and judge answers: CLIP, Whisper, a speaker
network, a head that knows beauty, a language model.

They are read from local folders by transformers, and every score names their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mio.checkpoint import sha256
from mio.evals.critic import Critic, Marking
from mio.evals.metrics.statistics import Floats
from mio.types import Audio, Image, MissingError

RATE = 16000  # Hz, of all that listen


class Witnesses:
    """`folder` holds `clip`, `whisper` and `speaker`, each as transformers saves models with their preprocessing;
    `aesthetic`, a linear head like LAION's, `weight` (1, D) and `bias` (1,) in model.safetensors; `judge`, an endpoint.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name).is_dir()

    def place(self, name: str) -> Path:
        """Raises: MissingError where there is no such witness."""
        if self.folder is None or not self.has(name):
            where = f"{self.folder or 'WITNESSES'}/{name}"
            raise MissingError(
                f"Nobody is there to judge this: no {name}.", at=where, fix=f"Save a {name} model there."
            )
        return self.folder / name

    def known_as(self, name: str) -> str:
        """Name and SHA-256 of a witness's weights; of a judge, of where it is."""
        weights = sorted(self.place(name).glob("*.safetensors")) or [self.place(name) / "config.json"]
        return f"{name} {'+'.join(sha256(path)[:16] for path in weights)}"

    def _read(self, name: str, kind: str) -> Any:
        """What a class of transformers reads of a witness. Raises: MissingError where either is not there."""
        place = self.place(name)
        try:
            hf: Any = import_module("transformers")
        except ImportError as error:
            raise MissingError("Witnesses need transformers.", fix="Install it: pip install 'mio[hf]'") from error
        return getattr(hf, kind).from_pretrained(place, local_files_only=True)

    def _loaded(self, name: str, processor: str, model: str) -> tuple[Any, Any]:
        return self._read(name, processor), self._read(name, model).eval()

    @cached_property
    def _clip(self) -> tuple[Any, Any]:
        return self._loaded("clip", "AutoImageProcessor", "CLIPModel")

    @cached_property
    def _words(self) -> Any:
        return self._read("clip", "AutoTokenizer")

    @cached_property
    def _critic(self) -> Critic:
        return Critic(self.place("judge"))

    @cached_property
    def _whisper(self) -> tuple[Any, Any]:
        return self._loaded("whisper", "WhisperProcessor", "WhisperForConditionalGeneration")

    @cached_property
    def _speaker(self) -> tuple[Any, Any]:
        return self._loaded("speaker", "AutoFeatureExtractor", "AutoModelForAudioXVector")

    def fits(self, picture: Image, text: str) -> float:
        """CLIP's score of a text beside a picture: the cosine of their embeddings."""
        seen, read = self.sees([picture])[0], self.reads([text])[0]
        return float(seen @ read / (np.linalg.norm(seen) * np.linalg.norm(read)))

    @torch.inference_mode()
    def sees(self, pictures: Sequence[Image | None]) -> Floats:
        """-> (N, D) image embeddings; zeros where there is no picture."""
        processor, model = self._clip

        def see(picture: Image) -> torch.Tensor:
            pixels = processor(images=picture.pixels, return_tensors="pt")["pixel_values"]
            return model.visual_projection(model.vision_model(pixels).pooler_output)[0]

        return _stacked([None if p is None else see(p) for p in pictures], model.config.projection_dim)

    @torch.inference_mode()
    def reads(self, texts: Sequence[str]) -> Floats:
        """-> (N, D) text embeddings of the same space."""
        model, words = self._clip[1], self._words
        length = model.config.text_config.max_position_embeddings

        def read(text: str) -> torch.Tensor:
            ids = words(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"]
            return model.text_projection(model.text_model(input_ids=ids).pooler_output)[0]

        return _stacked([read(text) for text in texts], model.config.projection_dim)

    def finds_beautiful(self, pictures: Sequence[Image | None]) -> Floats:
        """-> (N,) marks by a linear head on unit embeddings, from about 1 to 10; 0 where there is no picture."""
        seen, head = self.sees(pictures), load_file(self.place("aesthetic") / "model.safetensors")
        length = np.linalg.norm(seen, axis=1, keepdims=True)
        marks = seen / np.where(length, length, 1) @ head["weight"].double().numpy().T + head["bias"].double().numpy()
        out: Floats = np.where(length, marks, 0)[:, 0]
        return out

    def marks(self, markings: Sequence[Marking]) -> list[float]:
        """Each from 0 to 1, as the judge says."""
        return self._critic.marks(markings)

    @torch.inference_mode()
    def voices(self, sounds: Sequence[Audio | None]) -> Floats:
        """Speech at 16 kHz -> (N, D) speaker embeddings; zeros where there is no speech."""
        processor, model = self._speaker

        def listen(sound: Audio) -> torch.Tensor:
            samples = processor(sound.samples, sampling_rate=RATE, return_tensors="pt")
            return model(**samples).embeddings[0]

        return _stacked([None if s is None else listen(s) for s in sounds], model.config.xvector_output_dim)

    @torch.inference_mode()
    def hears(self, sounds: Sequence[Audio | None]) -> list[str]:
        """Speech at 16 kHz, 30 seconds of it at most -> what is said; "" where there is no speech."""
        processor, model = self._whisper

        def hear(sound: Audio) -> str:
            features = processor(sound.samples, sampling_rate=RATE, return_tensors="pt").input_features
            out = (
                model.generate(features, language="en", task="transcribe") if _many(model) else model.generate(features)
            )
            return str(processor.batch_decode(out, skip_special_tokens=True)[0]).strip()

        return ["" if s is None else hear(s) for s in sounds]


def _many(model: Any) -> bool:
    """Whether a Whisper knows several languages, and must be told which one is spoken."""
    return bool(getattr(model.generation_config, "is_multilingual", False))


def _stacked(rows: Sequence[torch.Tensor | None], width: int) -> Floats:
    return np.array([np.zeros(width) if r is None else r.double().numpy() for r in rows]).reshape(len(rows), width)
