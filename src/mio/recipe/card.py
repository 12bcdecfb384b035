"""The model card: what a run was trained on, how long, and what came out, from its own records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mio.recipe.tree import Recipe

DATA = (
    ("Emoji in three drawing styles (Noto, Twemoji, OpenMoji)", "Apache-2.0, CC BY 4.0, CC BY-SA 4.0"),
    ("Mulberry symbols", "CC BY-SA 4.0"),
    ("Handwritten digits (MNIST, test part)", "CC BY-SA 3.0"),
    ("Quick, Draw! doodles of eight things", "CC BY 4.0"),
    ("Scenes and clips generated from the emoji", "as the emoji"),
    ("Free Spoken Digit Dataset, six speakers", "CC BY-SA 4.0"),
    ("Picture names spoken by espeak-ng (synthetic)", "CC0 1.0"),
    ("Keywords and spoken coffee orders (Picovoice benchmarks)", "Apache-2.0"),
    ("LibriSpeech (one clip of each of 236 speakers; codec only)", "CC BY 4.0"),
    ("Rhasspy kerstin (German), LJ Speech (codec only)", "CC0 1.0, public domain"),
    ("African Storybook pictures, texts and narration", "CC BY 3.0 or 4.0, per story"),
    ("Pratham Books StoryWeaver texts", "CC BY 4.0"),
    ("based.cooking recipes with photographs", "public domain"),
    ("Open English WordNet definitions", "CC BY 4.0, WordNet licence"),
)

HEAD = """---
pipeline_tag: any-to-any
library_name: mio
license: cc-by-sa-4.0
tags: [any-to-any, text-to-image, text-to-speech, automatic-speech-recognition, image-to-text, video]
---

# mio-{name}

A small any-to-any model: text, pictures, speech and short clips go in and come out through one decoder-only language
model over discrete tokens. It shows the whole system at a size that trains on two CPU cores; it is a demonstration, not
a tool for real questions.

```python
import mio
model = mio.load()
print(model.chat(mio.image("picture.png"), "What is this?").text)
```

## What it can and cannot do

The table below says how well each direction works. In short: it understands spoken English digits and keywords, reads
nine handwritten digits of ten, tells how a clip moves, names six in seven of the 4,284 pictograms that it has seen,
says four digits of five, and gets the colours of scenes right, asked or drawing. It has **not** learned to draw what
it can name (one picture in nine is recognised), to film a motion, to name a known thing in a drawing style that it
has not seen it in, to answer what stands where in a scene, or to tell made-up names apart from examples.
It does **not** understand photographs, open English speech, voices it has not heard, or questions beyond these; its
stories have the form of stories and little sense. What it draws is soft, since its pixel decoder paints averages; its
voices buzz, since its codec was trained without discriminators. Generated media should be labelled as machine-made.
"""


def card(recipe: Recipe, parameters: Mapping[str, int], rows: Sequence[Mapping[str, object]], metrics: Path) -> str:
    """Markdown in the hub's format. `rows` are the lines of a run's report.json."""
    return "\n".join(
        [
            HEAD.format(name=recipe.name),
            "## Measured on the validation split\n",
            "Groups of the corpus that no training saw (recordings, (name, style) pairs, combinations, stories),",
            'drawn by hash; "train" marks pictures seen in training. Text is scored by exact match, media by',
            "classifiers trained apart on real media. Intervals are Wilson's at 95 %.\n",
            *table(rows),
            "\n## Parts and training\n",
            *_table(("part", "parameters"), [(k, f"{v:,}") for k, v in parameters.items()]),
            "",
            *_table(("stage", "steps", "minutes"), stage_times(metrics)),
            "\nTwo virtual CPU cores, no GPU; times include other work on the same machine.\n",
            "## Data\n",
            *_table(("data", "licence"), DATA),
            "\nBecause parts of the data are CC BY-SA, the weights are offered under CC BY-SA 4.0.",
            "Drawings of people and professions follow their sets' own choices, and the voices are six men's and three",
            "synthetic ones: the model speaks in no other.",
            "",
        ]
    )


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The report as a Markdown table."""
    lines = [
        (
            str(r["direction"]),
            str(r["what"]),
            f"{float(str(r['value'])):.1%}",
            _interval(r),
            str(r["count"]),
            str(r["split"]),
        )
        for r in rows
    ]
    return _table(("direction", "what", "right", "interval", "n", "split"), lines)


def _interval(row: Mapping[str, object]) -> str:
    return f"{float(str(row['low'])):.1%} - {float(str(row['high'])):.1%}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def stage_times(metrics: Path) -> list[tuple[str, str, str]]:
    """Steps and minutes of every stage, from the run's metrics.jsonl; of steps done twice the last counts."""
    seconds: dict[str, dict[int, float]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        seconds.setdefault(str(record["stage"]), {})[int(record["step"])] = float(record["seconds"])
    return [(name, str(max(steps)), f"{sum(steps.values()) / 60:.1f}") for name, steps in seconds.items()]
