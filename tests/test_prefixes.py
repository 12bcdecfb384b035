"""decoding/prefixes.py: prompts that begin alike are read once, and answered as if read anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mio.decoding.engine import Engine
from mio.decoding.grammar import Grammar, Limits
from mio.decoding.prefixes import Prefixes
from mio.decoding.request import Request
from mio.models.backbone import Backbone
from mio.models.steps import Steps
from mio.vocab import Vocabulary

SYSTEM = list(range(40, 70))
PROMPTS = [[*SYSTEM, 5], [*SYSTEM, 9, 8, 7], [*SYSTEM, 9, 8, 7], [*SYSTEM, 9, 3], [1, 2, 3], SYSTEM[:10]]


def answered(model: Backbone, vocab: Vocabulary, prefixes: int) -> list[list[int]]:
    """Answers to the prompts one after the other."""
    engine, out = Engine(model, 2, 80, prefixes), []
    for prompt in PROMPTS:
        asked = Request(prompt, Grammar([], np.arange(vocab.text_size), vocab.id("<|im_end|>"), Limits(12)))
        engine.submit(asked)
        while engine.busy:
            engine.step()
        out.append(asked.out)
    return out


def test_what_is_known_is_not_read_again_and_answers_are_the_same(
    backbone: Backbone, vocab: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, read, extend = answered(backbone, vocab, 0), [], Steps.extend

    def note(self: Steps, ids: Tensor, *rest: Tensor) -> Tensor:
        read.append(ids.shape[1])
        return extend(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Steps, "extend", note)
    assert answered(backbone, vocab, 4) == expected
    assert [n for n in read if n > 1] == [31, 3, 3]  # of three of the six only the last id


def test_a_prompts_own_keys_come_back(backbone: Backbone) -> None:
    held, row = Prefixes(2), torch.randn(2, 2, 2, 20, 8)
    held.keep([3, 1, 4, 1, 5], row)
    for prompt, known in (([3, 1, 4, 1, 5], 4), ([3, 1, 4, 1, 5, 9], 5), ([3, 1, 2, 2], 2), ([7, 7], 0), ([3], 0)):
        other = torch.zeros_like(row)
        assert held.fill(prompt, other) == known
        assert torch.equal(other[..., :known, :], row[..., :known, :])
        assert not other[..., known:, :].any()


def test_the_prompt_longest_out_of_use_is_forgotten() -> None:
    held, row = Prefixes(2), torch.randn(2, 2, 2, 20, 8)
    for prompt in ([1, 2, 3], [4, 5, 6]):
        held.keep(prompt, row)
    held.fill([1, 2, 3, 9], torch.zeros_like(row))  # used again
    held.keep([7, 8, 9], row)
    assert [held.fill([*p, 0], torch.zeros_like(row)) for p in ([1, 2, 3], [4, 5, 6], [7, 8, 9])] == [3, 0, 3]


def test_nothing_is_kept_unless_asked_for(backbone: Backbone, vocab: Vocabulary) -> None:
    engine = Engine(backbone, 2, 80)
    engine.submit(Request([5], Grammar([], np.arange(9), vocab.id("<|im_end|>"), Limits(3))))
    engine.step()
    assert not engine.prefixes.held
