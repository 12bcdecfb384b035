"""Put a finished run's model into the package: weights, report, model card.

python scripts/ship.py runs/tiny src/mio/assets/tiny README.md docs/results.md
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mio.checkpoint import MANIFEST, commit, load_tensors, read_json, write_json
from mio.config import from_dict
from mio.pipeline import load
from mio.recipe import Recipe
from mio.recipe.card import card, table

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
LIMIT = 24_000_000  # bytes that a shipped model may take


def parameters(folder: Path) -> dict[str, int]:
    """Parameters of every part of a model folder."""
    model = load(folder)
    parts = {"language model": model.backbone, "image tokenizer": model.processor.tokenizer("image").network}
    parts["speech tokenizer"] = model.processor.tokenizer("speech").network
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    pixels = read_json(folder / "image" / "pixels" / "config.json")
    return counts | {f"pixel decoder ({pixels['image_size']} px)": _tensors(folder / "image" / "pixels")}


def _tensors(folder: Path) -> int:
    return sum(t.numel() for t in load_tensors(folder / "model.safetensors").values())


def renew(page: Path, text: str) -> None:
    """Put a table between the page's two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("pages", type=Path, nargs="*")
    arguments = parser.parse_args()
    run, model = arguments.run, arguments.run / "model"
    rows = read_json(run / "measure" / "report.json")
    recipe = from_dict(Recipe, read_json(run / "recipe.json"))

    def write(staging: Path) -> None:
        shutil.copytree(model, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        write_json(staging / "report.json", rows)
        (staging / "README.md").write_text(
            card(recipe, parameters(model), rows, run / "metrics.jsonl"), encoding="utf-8"
        )

    commit(arguments.to, write)
    for page in arguments.pages:
        renew(page, "\n".join(table(rows)))
    size = sum(p.stat().st_size for p in arguments.to.rglob("*") if p.is_file())
    print(f"{arguments.to}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        raise SystemExit(f"More than {LIMIT / 1e6:.0f} MB: make the recipe's parts smaller.")


if __name__ == "__main__":
    main()
