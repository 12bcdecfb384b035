"""Models of others that look at made pictures and listen to made speech: CLIP, Whisper, a speaker network.

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

from mio.checkpoint import sha256
from mio.evals.metrics.statistics import Floats
from mio.types import Audio, Image, MissingError

RATE = 16000  # Hz, of all that listen


class Witnesses:
    """`folder` holds `clip`, `whisper` and `speaker`, each as transformers saves models with their preprocessing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name / "config.json").is_file()

    def place(self, name: str) -> Path:
        """Raises: MissingError where there is no such witness."""
        if self.folder is None or not self.has(name):
            where = f"{self.folder or 'WITNESSES'}/{name}"
            raise MissingError(
                f"Nobody is there to judge this: no {name}.", at=where, fix=f"Save a {name} model there."
            )
        return self.folder / name

    def known_as(self, name: str) -> str:
        """Name and SHA-256 of a witness's weights."""
        weights = sorted(self.place(name).glob("*.safetensors"))
        return f"{name} {'+'.join(sha256(path)[:16] for path in weights)}"

    def _loaded(self, name: str, processor: str, model: str) -> tuple[Any, Any]:
        """Raises: MissingError where the witness or transformers is not there."""
        place = self.place(name)
        try:
            hf: Any = import_module("transformers")
        except ImportError as error:
            raise MissingError("Witnesses need transformers.", fix="Install it: pip install 'mio[hf]'") from error
        local = {"local_files_only": True}
        read = getattr(hf, model).from_pretrained(place, **local).eval()
        return getattr(hf, processor).from_pretrained(place, **local), read

    @cached_property
    def _clip(self) -> tuple[Any, Any]:
        return self._loaded("clip", "AutoImageProcessor", "CLIPModel")

    @cached_property
    def _whisper(self) -> tuple[Any, Any]:
        return self._loaded("whisper", "WhisperProcessor", "WhisperForConditionalGeneration")

    @cached_property
    def _speaker(self) -> tuple[Any, Any]:
        return self._loaded("speaker", "AutoFeatureExtractor", "AutoModelForAudioXVector")

    @cached_property
    def _clip_words(self) -> Any:
        return import_module("transformers").AutoTokenizer.from_pretrained(self.place("clip"), local_files_only=True)

    @torch.inference_mode()
    def fits(self, picture: Image, text: str) -> float:
        """CLIP's score of a text beside a picture: the cosine of their embeddings."""
        processor, model = self._clip
        pixels = processor(images=picture.pixels, return_tensors="pt")["pixel_values"]
        most = model.config.text_config.max_position_embeddings
        words = self._clip_words(text, return_tensors="pt", truncation=True, max_length=most)
        seen = model.visual_projection(model.vision_model(pixels).pooler_output)[0]
        read = model.text_projection(model.text_model(**words).pooler_output)[0]
        return float(torch.cosine_similarity(seen, read, dim=0))

    @torch.inference_mode()
    def sees(self, pictures: Sequence[Image | None]) -> Floats:
        """-> (N, D) image embeddings; zeros where there is no picture."""
        processor, model = self._clip

        def see(picture: Image) -> torch.Tensor:
            pixels = processor(images=picture.pixels, return_tensors="pt")["pixel_values"]
            return model.visual_projection(model.vision_model(pixels).pooler_output)[0]

        return _stacked([None if p is None else see(p) for p in pictures], model.config.projection_dim)

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

    def spelt(self, texts: Sequence[str]) -> list[str]:
        """Texts as Whisper's English normaliser writes them, with the spellings that lie beside its weights.

        Raises:
            MissingError: its normalizer.json is not there.
        """
        processor, _ = self._whisper
        if processor.tokenizer.english_spelling_normalizer is None:
            raise MissingError(
                "This Whisper has no normalizer.json.", at=str(self.place("whisper")), fix="Copy it there."
            )
        return [str(processor.tokenizer.normalize(text)) for text in texts]


def _many(model: Any) -> bool:
    """Whether a Whisper knows several languages, and must be told which one is spoken."""
    return bool(getattr(model.generation_config, "is_multilingual", False))


def _stacked(rows: Sequence[torch.Tensor | None], width: int) -> Floats:
    return np.array([np.zeros(width) if r is None else r.double().numpy() for r in rows]).reshape(len(rows), width)
