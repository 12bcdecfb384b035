"""Our engine against transformers' `generate()` on the same weights, in one run: greedy at batch 1 and 8, beam 5; and
what the shipped model takes for an image with its pixels and for speech.

    python benchmarks/generate.py                    # random weights of 31M parameters and the shipped model, 4 minutes
    python benchmarks/generate.py --layers 2 --tokens 16

Both write exactly `--tokens` ids after 32, without a stop. Rounds take turns; the table gives each one's best, with the
other's outputs checked id by id where the arithmetic is fp32.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mio.decoding.engine import generate
from mio.decoding.grammar import Grammar, Limits
from mio.decoding.pattern import One, Repeat
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling
from mio.models.backbone import Backbone, BackboneConfig
from mio.pipeline import Job, Model, load, user
from mio.processor import Stream
from mio.types import Audio, AudioChunk, Image, Turns

PROMPT = 32
STOP = 1


@dataclass(frozen=True)
class Case:
    name: str
    batch: int
    sampling: Sampling


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
    ids = torch.tensor(prompts(case.batch, model.config.vocab_size))
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
    other = transformers.LlamaForCausalLM(config).to(dtype).eval()
    other.load_state_dict(model.state_dict())
    return other


def best(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def compare(model: Backbone, other: Any, arguments: argparse.Namespace) -> None:
    print("| case | ours, ids/s | transformers, ids/s | times | same ids |\n|---|---|---|---|---|")
    for case in CASES:
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(arguments.rounds):
            mine = best(lambda case=case: ours(model, case, arguments.tokens))  # type: ignore[misc]
            yours = best(lambda case=case: theirs(other, case, arguments.tokens))  # type: ignore[misc]
            seconds["ours"].append(mine[0])
            seconds["theirs"].append(yours[0])
        count = case.batch * arguments.tokens
        a, b = (count / min(seconds[who]) for who in ("ours", "theirs"))
        same = (np.array(mine[1]) == np.array(yours[1])).mean()
        print(f"| {case.name} | {a:.0f} | {b:.0f} | {a / b:.2f} | {same:.0%} |", flush=True)


def job(words: str, out: str, seed: int) -> Job:
    return Job(Turns((user(words),)), out, 900, seed=seed)


def media(model: Model, rounds: int) -> None:
    """An image with its pixels; speech: seconds of work by second of sound, and the time to the first chunk."""
    images = [best(lambda seed=n: model.run([job("Draw a fox.", "image", seed)])) for n in range(rounds)]  # type: ignore[misc]
    assert all(isinstance(reply.parts[0], Image) for _, (reply,) in images)
    print(f"\nimage of 32 codes with pixels: {min(s for s, _ in images):.3f} s")
    for seed in range(rounds):
        request, stream = model.request(job("Say seven.", "speech", seed)), Stream(model.processor)
        start, first, sound = time.perf_counter(), 0.0, 0.0
        for _, id in generate(model.backbone, [request]):
            for part in stream.take(id):
                assert isinstance(part, AudioChunk | Audio)
                first, sound = first or time.perf_counter() - start, sound + part.seconds
        took = time.perf_counter() - start
        print(f"speech of {sound:.2f} s: {took / sound:.2f} of real time, first sound after {first:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="where the processor has it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(0)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    config = BackboneConfig(16384, arguments.layers, 512, 8, 2, 64, 1376, 10_000.0, positions=1024, tied=True)
    model = Backbone(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data *= 5 if parameter.ndim > 1 else 1  # predictions that differ, as those of trained weights do
    model.to(dtype)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{size:.1f}M parameters, {dtype}, {arguments.threads} threads, {arguments.tokens} ids after {PROMPT}\n")
    compare(model, twin(model, dtype), arguments)
    media(load(), arguments.rounds)


if __name__ == "__main__":
    main()
