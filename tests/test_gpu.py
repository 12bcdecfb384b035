"""The engine on a GPU: the ids of the processor. Runs where there is one: pytest -m gpu."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from mio.decoding.engine import generate
from mio.decoding.grammar import Grammar, Limits
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling
from mio.models.backbone import Backbone

WAYS = {"greedy": GREEDY, "sampled": Sampling(top_p=0.9, repetition_penalty=1.2), "beams": BeamSearch(beams=3)}


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_writes_the_ids_of_the_processor(backbone: Backbone, way: str) -> None:
    found = []
    for model in (backbone, deepcopy(backbone).to("cuda")):
        words = np.arange(2, model.config.vocabulary)
        requests = [Request([9, n], Grammar([], words, 1, Limits(20)), {"text": WAYS[way]}, n) for n in range(4)]
        for _ in generate(model, requests):
            pass
        assert all(r.error is None for r in requests)
        found.append([r.out for r in requests])
    assert found[0] == found[1]
