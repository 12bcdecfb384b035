"""`mio export`: a model as a folder or a file that runs elsewhere, without our code."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.pipeline import load
from mio.pretrained.card import checks, describe
from mio.pretrained.export import export
from mio.pretrained.gguf_file import export_gguf
from mio.pretrained.hub import locate
from mio.pretrained.inventory import readable, size
from mio.pretrained.stock import Outgoing
from mio.pretrained.vllm import GRAMMARS, export_vllm


def hf(args: Arguments, console: Console) -> int:
    proof = export(_outgoing(args), args.folder, args.dtype, round(args.shard * 1e9), args.load)
    console.note(checks(proof))
    console.data({"folder": str(args.folder), "bytes": size(args.folder)} | describe(proof))
    console.text(str(args.folder))
    return 0


def vllm(args: Arguments, console: Console) -> int:
    checked = export_vllm(_outgoing(args), args.folder, args.dtype, round(args.shard * 1e9), args.load)
    console.note(checks(checked.proof))
    tried = "not tried: llguidance is not installed" if checked.grammars is None else f"{checked.grammars} tried"
    console.note(f"Grammars for vLLM's requests are in {GRAMMARS} ({tried}). Serve the folder as its README.md says.")
    console.data({"folder": str(args.folder), "grammars": checked.grammars} | describe(checked.proof))
    console.text(str(args.folder))
    return 0


def gguf(args: Arguments, console: Console) -> int:
    written = export_gguf(_outgoing(args), args.path, args.dtype)
    held = f"{written.tensors} tensors and {written.tokens} tokens in {readable(written.bytes)}"
    console.note(f"{held}; read back, all are the model's own in {written.dtype}. Media tokenizers are not in it.")
    console.data({"file": str(args.path)} | vars(written))
    console.text(str(args.path))
    return 0


def _outgoing(args: Arguments) -> Outgoing:
    """The model, in fp32 where bf16, in which released ones are loaded, would round what is asked for."""
    dtype, revision = torch.float32 if args.dtype in ("fp16", "fp32") else None, args.revision
    model = load(args.model, dtype=dtype, revision=revision, offline=args.offline)
    shipped = Path(str(files("mio") / "assets" / "tiny"))
    folder = shipped if args.model is None else locate(args.model, revision=revision, offline=True)
    held, text = model.processor, model.decoding("text")["text"]
    parts = (held.vocab, held.text, held.template)
    return Outgoing(model.config.name, model.backbone, *parts, text, folder, model.config.stop)
