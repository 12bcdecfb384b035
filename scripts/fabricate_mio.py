"""Write a folder of MIO-7B's shape with random weights at reduced width, to try commands on: it says nothing sensible.

    python scripts/fabricate_mio.py MIO-7B-Instruct-small --instruct --layout B

Run it from a checkout: the files are those of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder, not there yet")
    parser.add_argument("--instruct", action="store_true", help="answers end with the turn (default: a base model)")
    parser.add_argument("--layout", choices=("A", "B", "permuted"), default="A", help="which codes come first")
    parser.add_argument("--unclip", action="store_true", help="a pixel decoder, too; needs diffusers")
    args = parser.parse_args(words)
    if args.out.exists():
        parser.error(f"{args.out} is there already")
    sys.path.insert(0, str(TESTS))
    from fabricate_release import fabricate_release

    print(fabricate_release(args.out, args.layout, args.instruct, args.unclip))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
