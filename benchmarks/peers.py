"""Our engine against vLLM and CTranslate2 on the same weights: greedy at batch 1 and 8, and whether the ids are equal.

    python scripts/vllm_env.py /tmp/vllm                                    # an environment for each peer
    python -m venv /tmp/ct2 && /tmp/ct2/bin/pip install ctranslate2 transformers torch
    python benchmarks/peers.py --vllm /tmp/vllm --ctranslate2 /tmp/ct2      # either may be left out

Each peer runs in a process of its own environment, which prints JSON. All write exactly `--tokens` ids after 32 without
a stop; each one's best of `--rounds`, after one round that does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generate import CASES, STOP, best, ours, prompts, twin
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mio.decoding.sampling import BeamSearch
from mio.models.backbone import Backbone, BackboneConfig

GREEDY = [case for case in CASES if not isinstance(case.sampling, BeamSearch)]
TIMED = """
import json, sys, time
asked = json.load(open(sys.argv[1]))
def timed(run, rounds):
    run()
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        out = run()
        took.append(time.perf_counter() - begun)
    return {"seconds": min(took), "ids": out}
"""
VLLM = """
from vllm import LLM, SamplingParams
model = LLM(asked["folder"], skip_tokenizer_init=True, dtype=asked["dtype"], enforce_eager=True, max_num_seqs=8,
            max_model_len=1024, enable_prefix_caching=False)
count = asked["tokens"]
how = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False, logit_bias={0: -100, 1: -100})
def run(batch):
    found = model.generate([{"prompt_token_ids": ids} for ids in batch], how, use_tqdm=False)
    return [[*answer.outputs[0].token_ids] for answer in found]
"""
CTRANSLATE2 = """
import ctranslate2
folder, count = asked["folder"], asked["tokens"]
ctranslate2.converters.TransformersConverter(folder).convert(folder + "/ct2")
model = ctranslate2.Generator(folder + "/ct2", intra_threads=asked["threads"], inter_threads=1)
def run(batch):
    found = model.generate_batch([[f"t{id}" for id in ids] for ids in batch], max_length=count, min_length=count,
                                 sampling_topk=1, include_prompt_in_result=False, suppress_sequences=[["t0"], ["t1"]])
    return [answer.sequences_ids[0] for answer in found]
"""
ASK = """
print(json.dumps({name: timed(lambda: run(batch), asked["rounds"]) for name, batch in asked["prompts"].items()}))
"""
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT |= {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "VLLM_NO_USAGE_STATS": "1"}


def write(model: Backbone, folder: Path) -> None:
    """A stock folder whose tokens are "t0", "t1", ..."""
    twin(model, model.lm_head.weight.dtype).save_pretrained(folder)
    words = models.WordLevel({f"t{id}": id for id in range(model.config.vocabulary)}, unk_token="t0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), unk_token="t0", eos_token=f"t{STOP}").save_pretrained(
        folder
    )


def peer(environment: Path, script: str, asked: Path, threads: int) -> dict[str, Any]:
    """What a peer's process printed last."""
    words = [str(environment / "bin" / "python"), "-c", TIMED + script + ASK, str(asked)]
    env = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path)
    parser.add_argument("--ctranslate2", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="where the processor has it; not in CTranslate2")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(0)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    config = BackboneConfig(16384, arguments.layers, 512, 8, 2, 64, 1376, 10_000.0, positions=1024, tied=True)
    model = Backbone(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data *= 5 if parameter.ndim > 1 else 1  # predictions that differ, as those of trained weights do
    compare(model.to(dtype), arguments)


def compare(model: Backbone, arguments: argparse.Namespace) -> None:
    peers = {"vLLM": (arguments.vllm, VLLM), "CTranslate2": (arguments.ctranslate2, CTRANSLATE2)}
    dtype = str(model.lm_head.weight.dtype).removeprefix("torch.")
    print(f"{dtype}, {arguments.threads} threads, {arguments.tokens} ids after 32, best of {arguments.rounds}\n")
    print("| case | ours, ids/s | peer | its ids/s | times | same ids |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder, asked = Path(place, "model"), Path(place, "asked.json")
        write(model, folder)
        batches = {case.name: prompts(case.batch, model.config.vocabulary) for case in GREEDY}
        words = {key: getattr(arguments, key) for key in ("tokens", "rounds", "threads")}
        asked.write_text(json.dumps({"folder": str(folder), "dtype": dtype, "prompts": batches} | words))
        for name, (environment, script) in peers.items():
            if environment is not None:
                theirs = peer(environment, script, asked, arguments.threads)
                for case in GREEDY:
                    print(row(model, case, name, theirs[case.name], arguments), flush=True)


def row(model: Backbone, case: Any, name: str, found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """One case, ours measured beside it."""
    ours(model, case, arguments.tokens)
    runs = [best(lambda: ours(model, case, arguments.tokens)) for _ in range(arguments.rounds)]
    count = case.batch * arguments.tokens
    a, b = count / min(seconds for seconds, _ in runs), count / found["seconds"]
    same = (np.array(runs[0][1]) == np.array(found["ids"])).mean()
    return f"| {case.name} | {a:.0f} | {name} | {b:.0f} | {a / b:.2f} | {same:.0%} |"


if __name__ == "__main__":
    main()
