"""scripts/kill_test.py: no SIGKILL, wherever it falls, changes where a training ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_test.py"


def survived(kills: int) -> str:
    command = [sys.executable, str(SCRIPT), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_few_kills_change_nothing() -> None:
    assert survived(4).startswith("survived 4 of 4 kills")


@pytest.mark.slow
def test_two_hundred_kills_change_nothing_also_inside_saves() -> None:
    found = re.fullmatch(r"survived 200 of 200 kills, (\d+) of them inside a save\n", survived(200))
    assert found is not None
    assert int(found[1]) > 0
