"""What a recipe's language stages will take, before anything runs: parameters, memory, tokens, hours, and advice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

import torch
import torch.nn.functional as F

from mio.models.backbone import BackboneConfig
from mio.pretrained.memory import parameters
from mio.recipe.tree import Recipe, Stage
from mio.train.footprint import footprint
from mio.train.optim import Optim
from mio.vocab import Vocabulary

PROCESS = 350_000_000  # bytes of a process that has loaded torch and holds no model
HEAP = 1.12  # resident bytes for each that lives, measured: the allocator leaves gaps between tensors
SHARE = 0.55  # of a machine's rate for one large product that training reaches (docs/results.md)
SHORT = 512  # up to here attention keeps its scores (`layers.attend`)

Packs = Sequence[Sequence[int]]  # lengths of the samples of every pack of a stage


@dataclass(frozen=True)
class Devices:
    """`count` ranks, each with a whole copy of the model; `memory`: bytes of each, `rate`: its operations a second in
    one large product."""

    count: int
    memory: int
    rate: float


@dataclass(frozen=True)
class StagePlan:
    """`tokens`: real ones where samples are prepared, else the most that packs hold, and `fill` is None.
    `memory`: bytes of one rank at its peak; `advice`: what to change where that does not fit, else ""."""

    name: str
    ranks: int
    steps: int
    tokens: int
    fill: float | None
    memory: int
    hours: float
    advice: str


@dataclass(frozen=True)
class Plan:
    parameters: int
    stages: tuple[StagePlan, ...]

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages)


def plan(recipe: Recipe, devices: Devices, packs: Mapping[str, Packs]) -> Plan:
    """`packs`: of stages whose samples are prepared, by name; numbers of the others are upper bounds."""
    c = replace(recipe.backbone, vocabulary=vocabulary_size(recipe))
    ranks = gcd(devices.count, *(stage.fit.parts for stage in recipe.stages))
    stages = [_stage(c, stage, replace(devices, count=ranks), packs.get(stage.name)) for stage in recipe.stages]
    return Plan(parameters(c), tuple(stages))


def vocabulary_size(recipe: Recipe) -> int:
    return len(Vocabulary.build([f"text {n}" for n in range(recipe.text.size)], recipe.rows))


def _stage(c: BackboneConfig, stage: Stage, devices: Devices, packs: Packs | None) -> StagePlan:
    count = stage.fit.steps * stage.fit.parts
    room = count * stage.tokens
    tokens = room if packs is None else sum(map(sum, packs))
    work = operations(c, _longest(c, stage.tokens)) * count if packs is None else sum(operations(c, p) for p in packs)
    hours = work / (devices.rate * SHARE * devices.count) / 3600
    memory = rank_memory(c, stage, devices.count)
    advice = "" if memory <= devices.memory else _advice(c, stage, devices)
    fill = None if packs is None else tokens / room
    return StagePlan(stage.name, devices.count, stage.fit.steps, tokens, fill, memory, hours, advice)


def operations(c: BackboneConfig, lengths: Sequence[int]) -> float:
    """Of one pack forward and backward: 6 for every weight and token, and attention inside samples, half of it
    masked."""
    attention = 6 * c.layers * c.heads * c.head_dim * sum(n * n for n in lengths)
    return 6.0 * parameters(c) * sum(lengths) + attention


def rank_memory(c: BackboneConfig, stage: Stage, ranks: int) -> int:
    """Bytes of one rank at its peak: of the packs that a stage allows, the one that takes most; a save going on beside
    the step; with several ranks the buffers through which they add up their gradients."""
    packs = {_longest(c, stage.tokens), _longest(replace(c, positions=min(SHORT, c.positions)), stage.tokens)}
    optim = Optim(muon=stage.fit.optim.muon)  # rates take no memory
    sides = [footprint(c, optim, pack, min(2, stage.fit.parts // ranks)) for pack in packs]
    kept, gradients = sides[0].kept, 4 * parameters(c)
    shared = kept + 3 * gradients if ranks > 1 else 0
    return resident(kept + max(shared, *(side.peak for side in sides)))


def resident(live: int) -> int:
    """Bytes of a process whose tensors take `live` at their peak."""
    return PROCESS + round(HEAP * live)


def _longest(c: BackboneConfig, tokens: int) -> tuple[int, ...]:
    """A full pack of samples as long as the model allows."""
    whole, rest = divmod(tokens, c.positions)
    return tuple(n for n in (rest, *[c.positions] * whole) if n)


def _advice(c: BackboneConfig, stage: Stage, devices: Devices) -> str:
    """The mildest change that fits: shorter packs, more of them a step, cost no quality; fewer layers do."""
    smaller = stage
    while smaller.tokens // 2 >= c.positions:
        parts = smaller.fit.parts * 2
        smaller = replace(smaller, tokens=smaller.tokens // 2, fit=replace(smaller.fit, parts=parts))
        if rank_memory(c, smaller, devices.count) <= devices.memory:
            return f"tokens={smaller.tokens}, fit.parts={parts}: the same step in smaller packs"
    for layers in range(c.layers - 1, 0, -max(1, c.layers // 8)):
        if rank_memory(replace(c, layers=layers), smaller, devices.count) <= devices.memory:
            packs = "" if smaller is stage else f" and tokens={smaller.tokens}, fit.parts={smaller.fit.parts}"
            return f"backbone.layers={layers}{packs}: the whole model does not fit"
    return f"more memory, or a narrower backbone: {parameters(c):,} parameters do not fit"


def product_rate(width: int = 1024) -> float:
    """Operations a second of this machine in one large product, all threads; best of three."""
    x, w = torch.randn(width, width), torch.randn(width, width)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        F.linear(x, w)
        seconds.append(time.perf_counter() - begun)
    return 2 * width**3 / min(seconds[1:])
