"""`mio doctor`: what this machine has and lacks, one line for each thing, with a fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.types import MioError

GB = 10**9


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def doctor(args: Arguments, console: Console) -> int:
    checks = list(_checks(args.model, args.revision))
    failed = any(c.state == "fail" for c in checks)
    console.data({"ok": not failed, "checks": [asdict(c) for c in checks]})
    for check in checks:
        console.text(f"{check.state:4}  {check.name:8}  {check.found}")
        if check.fix:
            console.text(f"{'':16}fix: {check.fix}")
    return 4 if failed else 0


def _checks(model: Path | None, revision: str | None) -> Iterator[Check]:
    yield _python()
    for name, look in (("torch", _torch), ("images", _images), ("sound", _sound), ("video", _video)):
        yield _guarded(name, look)
    yield _disk()
    yield _memory()
    yield _guarded("model", lambda: _model(model or Path(str(files("mio"))) / "assets" / "tiny", revision))
    if model is not None:
        yield from _room_for(model, revision)


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """A library that cannot be loaded is a finding, not the end."""
    try:
        return look()
    except MioError as error:
        return Check(name, "fail", f"{error} ({error.at})" if error.at else str(error), error.fix)
    except (ImportError, OSError) as error:
        fix = "Install it again: pip install --force-reinstall mio"
        return Check(name, "fail", f"{type(error).__name__}: {error}", fix)


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Check:
    import torch

    from mio.cli.inputs import fast_matmul
    from mio.layers import fast_bf16

    fast_matmul()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    bf16 = "" if fast_bf16(torch.device("cpu")) else " without bf16: training multiplies in fp32"
    kernels = f"{torch.backends.cpu.get_cpu_capability()}{bf16}, float32 matmul {torch.get_float32_matmul_precision()}"
    found = f"{torch.__version__}, {threads} of {cores} threads, {kernels}, {gpu}"
    if 2 * threads < cores:
        return Check("torch", "warn", found, "Most cores lie idle: unset OMP_NUM_THREADS, or raise it.")
    return Check("torch", "ok", found)


def _images() -> Check:
    from PIL import __version__, features

    lacking = [name for name, code in (("PNG", "zlib"), ("JPEG", "jpg"), ("WebP", "webp")) if not features.check(code)]
    return _codecs("images", f"Pillow {__version__}", lacking, "Install Pillow from its wheel: pip install -U pillow")


def _sound() -> Check:
    import soundfile

    formats = soundfile.available_formats()
    lacking = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    found = f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}"
    return _codecs("sound", found, lacking, "Install it from its wheel: pip install -U soundfile")


def _video() -> Check:
    import av

    lacking = [] if "libx264" in av.codecs_available else ["H.264 encoder"]
    fix = "Clips are written as MPEG-4 instead. For H.264: pip install -U av"
    return _codecs("video", f"PyAV {av.__version__}", lacking, fix)


def _codecs(name: str, found: str, lacking: list[str], fix: str) -> Check:
    if lacking:
        return Check(name, "warn", f"{found}, without {', '.join(lacking)}", fix)
    return Check(name, "ok", found)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / GB
    return _room("disk", free, f"{free:.1f} GB free here", 0.1, 1.0, "Free some, or work in another folder.")


def _memory() -> Check:
    free = free_memory() / GB
    if not free:
        return Check("memory", "warn", "Free memory is not known on this system.")
    return _room(
        "memory", free, f"{free:.1f} GB free", 0.5, 2.5, "Close other programs: training tiny takes about 2 GB."
    )


def _room(name: str, free: float, found: str, least: float, enough: float, fix: str) -> Check:
    if free >= enough:
        return Check(name, "ok", found)
    return Check(name, "fail" if free < least else "warn", found, fix)


def free_memory() -> int:
    """Bytes; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _gpu_memory() -> int:
    """Free bytes of the first GPU; 0 without one."""
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def _model(folder: Path, revision: str | None) -> Check:
    from mio.checkpoint import verify
    from mio.cli import released
    from mio.pretrained.hub import is_id
    from mio.pretrained.inventory import is_released

    if (is_id(folder) and not folder.exists()) or is_released(folder):
        found, fix = released.state(folder, revision)
        return Check("model", "fail" if fix else "ok", found, fix)
    if not (folder / "config.json").is_file():
        fix = "Train it: mio train tiny --data DIR; then pass --model runs/tiny/model"
        return Check("model", "fail", f"No model in {folder}", fix)
    verify(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Check("model", "ok", f"{folder}: {size / 1e6:.1f} MB, every file as its manifest says")


def _room_for(model: Path, revision: str | None) -> Iterator[Check]:
    """Whether a released model fits into memory, if its shape is known."""
    try:
        from mio.cli import released

        config = released.shape(model, revision)
    except (MioError, ImportError, OSError):
        return  # the checks above have said it
    if config is None:
        return
    best, sums = released.room(config, free_memory(), _gpu_memory())
    if not best:
        yield Check("fits", "fail", sums, "Free memory, or take a larger machine.")
    elif best in ("int8", "int4"):
        yield Check("fits", "warn", f"{sums}: in {best} only", f"Load it in {best}.")
    else:
        yield Check("fits", "ok", f"{sums}: in {best}")
