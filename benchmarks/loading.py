"""Loading a sharded fp32 checkpoint in bf16: peak memory against its bound, seconds, and decoding afterwards.

    python benchmarks/loading.py [--gigabytes 1.5] [--bits 8] [--threads 2] [--tokens 32]

Fabricates a Llama-family folder of about that size (`.bin` shards with their index), loads it in a process of its own
and compares the peak of its resident memory with 1.15 x the model's bytes + 1 GiB. Then decodes with the loaded model
and with the same model built directly, which take turns; medians, and the median of the ratios. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, quantize_linears
from mio.models.steps import Cache, Steps
from mio.pretrained.llama import read_backbone
from mio.pretrained.memory import peak_resident

GIB = 1 << 30
SHARD = 1 << 28  # bytes
ROUNDS = 9
DTYPE = torch.bfloat16


def config_of(gigabytes: float) -> BackboneConfig:
    """MIO-7B's proportions at a width of 1,024 (256 below 0.3 GB), with as many layers as fill the size in fp32."""
    width, rows = (1024, 32000) if gigabytes >= 0.3 else (256, 8000)
    c = BackboneConfig(rows, 1, width, width // 64, width // 256, 64, 11 * width // 4)
    with torch.device("meta"):
        model = Backbone(c)
    layer = sum(p.numel() for p in model.model.layers.parameters())
    rest = sum(p.numel() for p in model.parameters()) - layer
    layers = max(1, round((gigabytes * 1e9 / 4 - rest) / layer))
    return BackboneConfig(rows, layers, width, c.heads, c.kv_heads, 64, c.hidden)


def fabricate(folder: Path, c: BackboneConfig) -> None:
    """config.json, shards of random fp32 weights and their index; one shard in memory at a time."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Backbone(c).state_dict().items()}
    files: dict[str, str] = {}
    for number, names in enumerate(_shards(shapes)):
        file = f"pytorch_model-{number + 1:05}.bin"
        torch.save({name: _weights(name, shapes[name]) for name in names}, folder / file)
        files |= dict.fromkeys(names, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text(json.dumps(settings(c)))


def _shards(shapes: dict[str, torch.Size]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        names.append(name)
        size += 4 * shape.numel()
        if size >= SHARD:
            yield names
            names, size = [], 0
    if names:
        yield names


def _weights(name: str, shape: torch.Size) -> Tensor:
    return torch.ones(shape) if "norm" in name else 0.02 * torch.randn(shape)


def settings(c: BackboneConfig) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "intermediate_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.positions,
        "tie_word_embeddings": c.tied,
    }


# ------------------------------------------------------------------------------------------------ memory


@dataclass(frozen=True)
class Loaded:
    """What a loading process saw: bytes resident at most, and before it loaded; bytes of weights, seconds."""

    peak: int
    before: int
    weights: int
    seconds: float


def load_and_tell(folder: Path, bits: Bits | None) -> None:
    """The subprocess: load once, print a `Loaded` as JSON."""
    before, start = peak_resident(), time.perf_counter()
    model = read_backbone(folder, DTYPE, bits)
    seconds = time.perf_counter() - start
    print(json.dumps(vars(Loaded(peak_resident(), before, _bytes(model), seconds))))


def _bytes(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def measure_loading(folder: Path, bits: Bits | None) -> bool:
    command = [sys.executable, __file__, "--load", str(folder), *(["--bits", str(bits)] if bits else [])]
    found = Loaded(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    bound = 1.15 * found.weights + GIB
    stored = sum(p.stat().st_size for p in folder.glob("*.bin"))
    print(f"loaded {stored / 1e9:.2f} GB of fp32 as {found.weights / 1e9:.2f} GB in {found.seconds:.1f} s")
    print(f"peak resident {found.peak / 1e9:.2f} GB ({found.before / 1e9:.2f} before loading), bound {bound / 1e9:.2f}")
    return found.peak <= bound


# ------------------------------------------------------------------------------------------------ speed


def built(folder: Path, model: Backbone, bits: Bits | None) -> Backbone:
    """The model of a folder without the reader under test: built, then given its weights."""
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.bin")):
        state |= torch.load(path, weights_only=True, mmap=True)
    direct = Backbone(model.config)
    direct.load_state_dict(state)
    if bits is not None:
        quantize_linears(direct, bits)
    return direct.to(DTYPE)


@torch.inference_mode()
def tokens_per_second(model: Backbone, tokens: int) -> float:
    """Greedy decoding of one sequence, token by token."""
    cache, steps = Cache(model.config, 1, tokens, model.lm_head.weight), Steps(model)
    id = torch.zeros(1, 1, dtype=torch.long)
    start = time.perf_counter()
    for step in range(tokens):
        id = model.logits(steps.extend(id, torch.full((1, 1), step), cache)).argmax(-1)
    return tokens / (time.perf_counter() - start)


def measure_decoding(folder: Path, bits: Bits | None, tokens: int) -> None:
    loaded = read_backbone(folder, DTYPE, bits)
    sides = {"loaded": loaded, "built": built(folder, loaded, bits)}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            speed = tokens_per_second(sides[name], tokens)
            if turn:  # the first warms up
                speeds[name].append(speed)
    ratio = statistics.median(a / b for a, b in zip(speeds["loaded"], speeds["built"], strict=True))
    for name, values in speeds.items():
        low, high = min(values), max(values)
        print(f"decoding {name:6} {statistics.median(values):8.2f} tokens/s  [{low:.2f}, {high:.2f}]")
    print(f"loaded / built: {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--bits", type=int, choices=[4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.load is not None:
        load_and_tell(arguments.load, arguments.bits)
        return
    with TemporaryDirectory() as folder:
        fabricate(Path(folder), config_of(arguments.gigabytes))
        fits = measure_loading(Path(folder), arguments.bits)
        measure_decoding(Path(folder), arguments.bits, arguments.tokens)
    sys.exit(0 if fits else "the peak is above its bound")


if __name__ == "__main__":
    main()
