"""`mio serve --engine openai`: all of a model but its weights here, and those at a back end that was tried first."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mio.checkpoint import read_json, require
from mio.config import from_dict
from mio.decoding.runs import NONE, Run
from mio.models.backbone import Backbone
from mio.pipeline import Model, ModelConfig, load_processor
from mio.pretrained.hub import locate
from mio.pretrained.language import stop_token
from mio.pretrained.llama import read_config
from mio.pretrained.release import FRAMES, read_processor
from mio.processor import Processor
from mio.serve.fleet import Backend
from mio.serve.upstream import Upstream, UpstreamError
from mio.types import MioError

PROBE = "Two words, and a third: 1, 2, 3.\n"
FIX = "Let vLLM serve a folder that `mio export vllm` wrote, as its README says; or take `mio serve --bare`."


def media_plane(source: Path | None) -> Model:
    """A model's tokenizers, vocabulary, template and settings; its language model has shapes, but no weights.

    Raises:
        MissingError, DataError: as `pipeline.load`.
    """
    folder = Path(str(files("mio") / "assets" / "tiny")) if source is None else locate(source)
    found = read_json(folder / "config.json")
    config, processor = _released(folder) if "architectures" in found else _own(folder, found)
    with torch.device("meta"):
        return Model(config, Backbone(config.backbone), processor)


def _own(folder: Path, found: Any) -> tuple[ModelConfig, Processor]:
    config = from_dict(ModelConfig, found)
    if config.released:
        return config, read_processor(locate(config.released), torch.float32)
    processor = load_processor(folder, config.rows, config.systems, config.frames)
    require(config.fingerprint, processor.fingerprint, str(folder), "Put back the tokenizers that came with the model.")
    return config, processor


def _released(folder: Path) -> tuple[ModelConfig, Processor]:
    processor = read_processor(folder)
    rows, systems = processor.vocab.rows, dict(processor.template.systems)
    stop = processor.vocab.tokens[stop_token(folder)]
    config = ModelConfig(folder.name, read_config(folder), rows, systems, frames=FRAMES, profile="paper", stop=stop)
    return config, processor


def reach(model: Model, upstream: Upstream) -> tuple[Model, Backend]:
    """The back end, and the model as long as that takes it: its window may be shorter.

    Raises:
        MioError: it cannot be reached, has another text tokenizer, gives no ids, or does not keep to a grammar.
    """
    card = _card(upstream, model.config.name)
    positions = min(int(card.get("max_model_len") or model.config.backbone.positions), model.config.backbone.positions)
    config = replace(model.config, backbone=replace(model.config.backbone, positions=positions))
    backend = Backend(upstream, str(card["id"]), len(model.processor.vocab), positions)
    _same_text(model, backend)
    _keeps_to_runs(model, backend)
    return Model(config, model.backbone, model.processor), backend


def _card(upstream: Upstream, name: str) -> dict[str, Any]:
    """The entry of a model of this name, or of the first one."""
    cards = upstream.models()
    if not cards:
        raise MioError("The back end lists no model.", at=upstream.base, fix=FIX)
    return next((card for card in cards if card["id"] == name), cards[0])


def _same_text(model: Model, backend: Backend) -> None:
    if backend.upstream.tokens(backend.model, PROBE) != model.processor.text.encode(PROBE):
        raise MioError("The back end's text tokenizer is not this model's.", at=backend.upstream.base, fix=FIX)


def _keeps_to_runs(model: Model, backend: Backend) -> None:
    """Ask for one of two ids that no model would choose, from a prompt of one id."""
    ids = np.array([len(model.processor.vocab) - 2, len(model.processor.vocab) - 1])
    run = Run(ids, NONE, 3)
    prompt = [model.processor.vocab.id(model.processor.vocab.specials.im_start)]
    try:
        found = backend.continued(prompt, run)
    except UpstreamError as error:
        raise MioError(f"The back end refused a run of ids. {error}", at=backend.upstream.base, fix=FIX) from error
    if len(found) != run.most or not set(found) <= set(ids.tolist()):
        raise MioError("The back end does not keep to its grammar.", at=backend.upstream.base, fix=FIX)
