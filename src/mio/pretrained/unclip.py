"""SEED-2's image embedding -> pixels, through the stock unCLIP pipeline of diffusers and a local folder.

Numbers are the release's (MIO, image tokenizer): empty prompt, guidance 10, 20 steps, noise level 0, one image a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mio.checkpoint import read_json
from mio.tokenizers.seed import Decoded
from mio.types import DataError, MissingError

INDEX = "model_index.json"
WEIGHTED = {"image_normalizer": "9 kB", "text_encoder": "1.4 GB", "unet": "3.5 GB", "vae": "335 MB"}  # sizes in fp32
LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}  # the last: diffusers' own, by its oldest name


@dataclass(frozen=True)
class UnClipConfig:
    """How pixels are drawn. `seed` fixes them: every image starts from the same latents, as in the release."""

    steps: int = 20
    guidance: float = 10.0
    noise_level: int = 0
    seed: int = 0


class UnClip:
    """A `Render` for `SeedTokenizer`: it loads its folder at the first call, and again after `release`."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, config: UnClipConfig = UnClipConfig()) -> None:
        self.folder, self.dtype, self.config = folder, dtype, config
        self._lock = Lock()
        self._pipeline: Any = None

    def __call__(self, decoded: Decoded) -> Tensor:
        """Embeddings (B, E) -> pixels (B, 3, H, W) in [0, 1]; 768 x 768 for the released folder.

        Raises:
            MissingError: diffusers is not installed, or files of the folder are absent; all of them are named.
            DataError: the folder asks for code of its own.
        """
        with self._lock:  # the pipeline's scheduler counts steps: one image at a time
            self._pipeline = self._pipeline or load_pipeline(self.folder, self.dtype)
            return torch.cat([self._draw(embedding[None]) for embedding in decoded.embedding])

    @property
    def loaded(self) -> bool:
        return self._pipeline is not None

    def release(self) -> None:
        """Free the pipeline's memory."""
        with self._lock:
            self._pipeline = None

    def _draw(self, embedding: Tensor) -> Tensor:
        """(1, E) -> (1, 3, H, W). Drawn in fp32 and on the CPU, so that a seed means the same everywhere."""
        pipe, c = self._pipeline, self.config
        generator = torch.Generator().manual_seed(c.seed)
        side = pipe.unet.config.sample_size
        latents = torch.randn(1, pipe.unet.config.in_channels, side, side, generator=generator)
        out = pipe(
            prompt="",
            image_embeds=embedding.to(pipe.device, self.dtype),
            num_inference_steps=c.steps,
            guidance_scale=c.guidance,
            noise_level=c.noise_level,
            latents=latents.to(pipe.device, self.dtype),
            generator=generator,
            output_type="pt",
        )
        pixels: Tensor = out.images
        return pixels.float().cpu()


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """diffusers' `StableUnCLIPImg2ImgPipeline` of a folder, without its image encoder: embeddings are given.

    Raises:
        MissingError, DataError: as `UnClip`.
    """
    try:
        from diffusers import StableUnCLIPImg2ImgPipeline
    except ImportError as error:
        fix = 'Install it: pip install "mio[hf]". Codes and the image embedding are there without it.'
        raise MissingError("Pictures from SEED-2 codes need diffusers and transformers.", fix=fix) from error
    stock: Any = StableUnCLIPImg2ImgPipeline
    options = {"dtype": dtype, "variant": _variant(folder, dtype), "local_files_only": True}
    options["low_cpu_mem_usage"] = find_spec("accelerate") is not None
    try:
        pipeline = stock.from_pretrained(str(folder), image_encoder=None, feature_extractor=None, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder.name} cannot be loaded: {error}", at=str(folder), fix="Download it again.") from error
    pipeline.image_encoder = _Absent(dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _Absent(nn.Module):
    """In the place of the image encoder (2.5 GB), which the pipeline asks for its dtype and device only."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.weight = dtype, nn.Parameter(torch.zeros(1, dtype=dtype), requires_grad=False)

    @property
    def device(self) -> torch.device:
        return self.weight.device


def _variant(folder: Path, dtype: torch.dtype) -> str | None:
    """Which weights to read: "fp16" where it is asked for or a component has no other; else None. Checks the folder."""
    lacking = [] if (folder / INDEX).is_file() else [INDEX]
    lacking += [f"{name} ({size})" for name, size in WEIGHTED.items() if not any(_weights(folder / name))]
    if lacking:
        fix = "Put the folder stable-diffusion-2-1-unclip there; safetensors are enough, image_encoder is not needed."
        raise MissingError(f"{folder.name} lacks {', '.join(lacking)}.", at=str(folder), fix=fix)
    _check_stock(folder)
    only_half = any(not _weights(folder / name)[0] for name in WEIGHTED)
    return "fp16" if only_half or (dtype == torch.float16 and _weights(folder / "unet")[1]) else None


def _weights(component: Path) -> tuple[list[Path], list[Path]]:
    """A component's files of weights, in full and in half precision."""
    files = [p for ending in ("safetensors", "bin") for p in component.glob(f"*.{ending}")]
    return [p for p in files if ".fp16" not in p.name], [p for p in files if ".fp16" in p.name]


def _check_stock(folder: Path) -> None:
    """Refuse an index that names modules of its own: to load them is to run them."""
    index = read_json(folder / INDEX)
    named = [v[0] for v in index.values() if isinstance(v, list) and v and v[0] is not None]
    if not isinstance(index.get("_class_name"), str) or not set(named) <= LIBRARIES:
        reason = f"{INDEX} asks for code beyond diffusers and transformers: {index.get('_class_name')}, {set(named)}."
        raise DataError(reason, at=str(folder), fix="Get the folder from its publisher.")
