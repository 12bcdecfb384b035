"""Our engine against transformers' `generate()` on the same weights, in one run: greedy at batch 1 and 8, beam 5, and
greedy with int8 weights; and what the shipped model takes for an image with its pixels and for speech.

    python benchmarks/generate.py                 # random weights of 31M parameters, then the shipped model: minutes
    python benchmarks/generate.py --layers 2 --tokens 16 --rounds 1

All write exactly `--tokens` ids after 32, without a stop, in bf16 where the processor has it (--fp32: never). Rounds
take turns after one that is not counted; the table gives medians. "Of the limit": the bytes that a step must read,
weights and keys and values, by what this machine read per second in a buffer as large as the weights, over the time of
a step. "Same ids" are those of transformers before the first that differs: all of them in fp32; bf16 may round two near
scores otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch

from mio.decoding.engine import generate
from mio.decoding.grammar import Grammar, Limits
from mio.decoding.pattern import One, Repeat
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling
from mio.layers import fast_bf16
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import quantize_linears
from mio.pipeline import Job, Model, load, user
from mio.processor import Stream
from mio.types import Audio, AudioChunk, Image, Turns

PROMPT = 32
STOP = 1
T = TypeVar("T")
Runner = Callable[["Case", int], list[list[int]]]
Speeds, Answers = dict[str, float], dict[str, list[list[int]]]
THEIRS = "transformers"


@dataclass(frozen=True)
class Case:
    name: str
    batch: int
    sampling: Sampling

    @property
    def lanes(self) -> int:
        return self.batch * (self.sampling.beams if isinstance(self.sampling, BeamSearch) else 1)


CASES = (Case("batch 1", 1, GREEDY), Case("batch 8", 8, GREEDY), Case("beam 5", 1, BeamSearch()))


def prompts(batch: int, vocabulary: int) -> list[list[int]]:
    ids: list[list[int]] = np.random.default_rng(0).integers(2, vocabulary, (batch, PROMPT)).tolist()
    return ids


def ours(model: Backbone, case: Case, tokens: int) -> list[list[int]]:
    """Exactly `tokens` ids each, and the stop, which costs no step."""
    words = np.arange(2, model.config.vocabulary)
    pattern = Repeat(One("text"), tokens, tokens)
    requests = [
        Request(ids, Grammar([], words, STOP, Limits(tokens + 1, pattern)), {"text": case.sampling})
        for ids in prompts(case.batch, model.config.vocabulary)
    ]
    for _ in generate(model, requests):
        pass
    return [r.out[:tokens] for r in requests]


def theirs(model: Any, case: Case, tokens: int) -> list[list[int]]:
    ids = torch.tensor(prompts(case.batch, model.config.vocab_size), device=model.device)
    beams = case.sampling.beams if isinstance(case.sampling, BeamSearch) else 1
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        num_beams=beams,
        suppress_tokens=[0, STOP],
    )
    found: list[list[int]] = out[:, PROMPT:].tolist()
    return found


def twin(model: Backbone, dtype: torch.dtype) -> Any:
    """The same weights in transformers."""
    transformers, c = importlib.import_module("transformers"), model.config
    config = transformers.LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        intermediate_size=c.hidden,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=c.positions,
        tie_word_embeddings=c.tied,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=0,
    )
    other = transformers.LlamaForCausalLM(config).to(model.lm_head.weight.device, dtype).eval()
    other.load_state_dict(model.state_dict())
    return other


def timed(run: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def read_rate(size: int, device: str = "cpu") -> float:
    """Bytes per second of reading a buffer of `size` bytes from its beginning to its end: the best of ten."""
    buffer = torch.ones(size // 4, device=device)
    return size / min(timed(lambda: buffer.sum().item())[0] for _ in range(10))


def read_bytes(model: Backbone) -> int:
    """Of all weights that a step reads: a table of embeddings of its own is looked up, not read."""
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    if not model.config.tied:
        del tensors[model.model.embed_tokens.weight.data_ptr()]
    return sum(tensors.values())


def cached_bytes(model: Backbone, tokens: int) -> int:
    """Of keys and values that a step reads for each answer, in the middle of it."""
    c, like = model.config, model.model.embed_tokens.weight
    return c.layers * 2 * c.kv_heads * c.head_dim * like.element_size() * (PROMPT + tokens // 2)


def alike(mine: list[list[int]], yours: list[list[int]]) -> float:
    """The share of ids before the first that differs."""
    same = np.array(mine) == np.array(yours)
    return float(np.logical_and.accumulate(same, axis=1).mean())


def measured(case: Case, runners: Mapping[str, Runner], arguments: argparse.Namespace) -> tuple[Speeds, Answers]:
    """Median ids per second of each, and what each wrote."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    found: Answers = {}
    for number in range(arguments.rounds + 1):
        for name, run in runners.items():
            took, found[name] = timed(lambda run=run: run(case, arguments.tokens))  # type: ignore[misc]
            seconds[name] += [took] if number else []
    count = case.batch * arguments.tokens
    return {name: count / statistics.median(taken) for name, taken in seconds.items()}, found


def compare(models: Mapping[str, Backbone], other: Any, arguments: argparse.Namespace) -> None:
    """A row for each case and model of ours, by the name of its weights."""
    runners: dict[str, Runner] = {name: partial(ours, model) for name, model in models.items()}
    runners[THEIRS] = partial(theirs, other)
    print("| case | weights | ours, ids/s | transformers, ids/s | times | of the limit | same ids |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        speeds, found = measured(case, runners, arguments)
        for name, model in models.items():
            needed = read_bytes(model) + case.lanes * cached_bytes(model, arguments.tokens)
            share = speeds[name] / case.batch * needed / arguments.read_rate(read_bytes(model))
            row = f"| {case.name} | {name} | {speeds[name]:.0f} | {speeds[THEIRS]:.0f} "
            times, same = speeds[name] / speeds[THEIRS], alike(found[name], found[THEIRS])
            print(f"{row}| {times:.2f} | {share:.0%} | {same:.0%} |", flush=True)


def job(words: str, out: str, seed: int) -> Job:
    return Job(Turns((user(words),)), out, 900, seed=seed)


def media(model: Model, rounds: int) -> None:
    """An image with its pixels; speech: seconds of work by second of sound, and the time to the first chunk."""
    images = [timed(lambda seed=n: model.run([job("Draw a fox.", "image", seed)])) for n in range(rounds)]  # type: ignore[misc]
    assert all(isinstance(reply.parts[0], Image) for _, (reply,) in images)
    print(f"\nimage of 32 codes with pixels: {statistics.median(s for s, _ in images):.3f} s (medians of {rounds})")
    for seed in range(rounds):
        request, stream = model.request(job("Say seven.", "speech", seed)), Stream(model.processor)
        start, first, sound = time.perf_counter(), 0.0, 0.0
        for _, id in generate(model.backbone, [request]):
            for part in stream.take(id):
                assert isinstance(part, AudioChunk | Audio)
                first, sound = first or time.perf_counter() - start, sound + part.seconds
        took = time.perf_counter() - start
        print(f"speech of {sound:.2f} s: {took / sound:.2f} of real time, first sound after {first:.3f} s")


def random_model(config: BackboneConfig, dtype: torch.dtype) -> Backbone:
    """Weights large enough that predictions differ, as those of trained ones do."""
    torch.manual_seed(0)
    model = Backbone(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data *= 5 if parameter.ndim > 1 else 1
    return model.to(dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fp32", action="store_true", help="also where the processor has bf16")
    parser.set_defaults(cases=CASES, read_rate=cache(read_rate))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    native = fast_bf16(torch.device("cpu")) and not arguments.fp32
    config = BackboneConfig(16384, arguments.layers, 512, 8, 2, 64, 1376, 10_000.0, positions=1024, tied=True)
    model = random_model(config, torch.bfloat16 if native else torch.float32)
    small = deepcopy(model)
    quantize_linears(small, 8)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    rate = arguments.read_rate(read_bytes(model)) / 1e9
    print(f"{size:.1f}M parameters, {arguments.threads} threads, {rate:.1f} GB/s read, ", end="")
    print(f"{arguments.tokens} ids after {PROMPT}, medians of {arguments.rounds}\n")
    dtype = model.lm_head.weight.dtype
    compare({str(dtype).removeprefix("torch."): model, "int8": small}, twin(model, dtype), arguments)
    media(load(), min(arguments.rounds, 3))


if __name__ == "__main__":
    main()
