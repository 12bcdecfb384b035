"""How likely a model finds texts after a prompt: what multiple choice without writing rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mio.layers import Segments
from mio.pipeline import Model
from mio.types import Document, Ids, MioError, Text, Turns

Pair = tuple[Ids, int]  # ids of prompt and text, and how many of them are the prompt


def likelihoods(model: Model, content: Turns | Document, texts: Sequence[str], bos: bool = True) -> list[float]:
    """Natural logarithm of the probability of each text right after the prompt, in one packed pass.

    Text of a document is encoded together with its prompt, as lm-eval does it, so that pieces may join across the
    seam; after an open turn it is encoded alone. `bos`: whether a document begins with the begin-of-text token.

    Raises:
        MioError: prompt and text do not fit into the model's window.
    """
    pairs = [_pair(model, content, text, bos) for text in texts]
    longest = max(len(ids) for ids, _ in pairs)
    if longest > model.config.backbone.positions:
        what = f"Prompt and text take {longest} of {model.config.backbone.positions} positions."
        raise MioError(what, fix="Shorten the prompt, or give fewer examples.")
    return _scored(model, pairs)


def _pair(model: Model, content: Turns | Document, text: str, bos: bool) -> Pair:
    if isinstance(content, Turns):
        prompt = model.processor.sequence(content, open_turn=True).ids
        return np.concatenate([prompt, np.array(model.processor.text.encode(text), np.int64)]), len(prompt)
    first = 0 if bos else 1
    prompt = model.processor.sequence(content).ids[first:-1]
    whole = model.processor.sequence(Document((*content.parts, Text(text)), content.inputs)).ids[first:-1]
    return whole, len(prompt)


@torch.inference_mode()
def _scored(model: Model, pairs: Sequence[Pair]) -> list[float]:
    lengths = [len(ids) for ids, _ in pairs]
    ids = torch.from_numpy(np.concatenate([ids for ids, _ in pairs]))
    positions = torch.cat([torch.arange(n) for n in lengths])
    hidden = model.backbone(ids, positions, Segments.of(lengths)).split(lengths)
    return [_sum(model, states, torch.from_numpy(ids), at) for states, (ids, at) in zip(hidden, pairs, strict=True)]


def _sum(model: Model, states: torch.Tensor, ids: torch.Tensor, prompt: int) -> float:
    """(T, width) states of (T,) ids, of which the first are the prompt."""
    logits = model.backbone.logits(states[prompt - 1 : -1]).float()
    return float(logits.log_softmax(-1).gather(1, ids[prompt:, None]).sum())
