"""Write the sample of the corpus that ships with the package: chosen by rule and hash, in the corpus's own layout.

python scripts/make_sample.py CORPUS src/mio/assets/sample
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from mio.checkpoint import commit
from mio.data.prepare import split
from mio.data.sources import CORPUS, Item, Source, read_corpus
from mio.recipes.tiny import tiny
from mio.types import MediaFile, MioError

Keep = Callable[[Item], bool]


@dataclass(frozen=True)
class Pick:
    """How many items of a source: `held` of the validation split and `seen` of the other, spread over `fields`."""

    source: str
    held: int
    seen: int
    fields: tuple[str, ...] = ()
    keep: Keep = lambda item: True
    keep_seen: Keep = lambda item: True

    def of(self, train: Sequence[Item], val: Sequence[Item]) -> list[Item]:
        seen = [i for i in train if i.source == self.source and self.keep(i) and self.keep_seen(i)]
        held = [i for i in val if i.source == self.source and self.keep(i)]
        taken = spread(held, self.held, self.fields, ())
        return taken + spread(seen, self.seen, self.fields, taken)


def rank(item: Item) -> tuple[str, str]:
    """An order that nobody chose."""
    return sha256(item.group.encode()).hexdigest(), item.id


def spread(pool: Sequence[Item], count: int, fields: Sequence[str], taken: Sequence[Item]) -> list[Item]:
    """The first `count` by rank, always one whose values of `fields` have been taken least, in `taken` or here."""
    left, out = sorted(pool, key=rank), list[Item]()
    used = Counter((f, str(item.meta[f])) for f in fields for item in taken)
    while left and len(out) < count:
        best = min(left, key=lambda i: sum(used[f, str(i.meta[f])] for f in fields))
        used.update((f, str(best.meta[f])) for f in fields)
        left.remove(best)
        out.append(best)
    return out


# ------------------------------------------------------------------------------------------------- what to take

EMOJI = (14, 10)  # names with a held-out picture, and names of things that scenes are made of


def choose(train: Sequence[Item], val: Sequence[Item]) -> list[Item]:
    """The sample's items; whatever is joined on a picture's code point follows the emoji."""
    emoji = choose_emoji(train, val)
    hexes, names = {i.meta["hex"] for i in emoji}, {i.meta["name"] for i in emoji}
    picks = (
        Pick("mulberry", 0, 8, ("category",)),
        Pick("digits", 16, 8, ("name",)),
        Pick("doodles", 12, 4, ("name",)),
        Pick("scenes", 8, 4, ("background", "subject"), keep_seen=lambda i: i.meta["subject"] in names),
        Pick("fsdd", 30, 10, ("text", "speaker")),
        Pick("names", 10, 6, ("hex", "speaker"), keep=lambda i: i.meta["hex"] in hexes),
        Pick("keywords", 4, 2, ("text",)),
        Pick("orders", 0, 4),
        Pick("motion", 7, 3, ("motion",)),
        Pick("storybook", 2, 1, keep=lambda i: i.license.startswith("CC-BY-") and len(i.parts) <= 16),
        Pick("stories", 2, 2, keep=lambda i: i.license == "CC-BY-4.0" and len(str(i.meta["text"])) <= 1500),
        Pick("definitions", 0, 8, keep=lambda i: i.meta["hex"] in hexes),
    )
    return emoji + [item for pick in picks for item in pick.of(train, val)]


def choose_emoji(train: Sequence[Item], val: Sequence[Item]) -> list[Item]:
    """All three styles of names that are spoken, too: see `EMOJI`; held-out speech and a definition are preferred."""
    by_name: dict[str, list[Item]] = defaultdict(list)
    for item in sorted((i for i in [*train, *val] if i.source == "emoji"), key=rank):
        by_name[str(item.meta["name"])].append(item)
    held, held_spoken = ids(val), hexes_of(val, "names")
    spoken, defined = hexes_of([*train, *val], "names"), hexes_of(train, "definitions")
    whole = [(n, i[0].meta["hex"]) for n, i in by_name.items() if len(i) == 3 and i[0].meta["hex"] in spoken]
    whole.sort(key=lambda pair: -((pair[1] in held_spoken) * 2 + (pair[1] in defined)))
    things = {i.meta["subject"] for i in train if i.source == "scenes"}
    first = [n for n, _ in whole if any(i.id in held for i in by_name[n])][: EMOJI[0]]
    second = [n for n, _ in whole if n in things and n not in first][: EMOJI[1]]
    return [item for name in first + second for item in by_name[name]]


def ids(items: Sequence[Item]) -> set[str]:
    return {i.id for i in items}


def hexes_of(items: Sequence[Item], source: str) -> set[str]:
    return {str(i.meta["hex"]) for i in items if i.source == source}


# -------------------------------------------------------------------------------------------------- the records


def write_source(folder: Path, corpus: Path, source: Source, chosen: set[str]) -> list[str]:
    """Its records and packs, cut down to the chosen items; returns the files."""
    items = [i for i in source.items(corpus) if i.id in chosen]
    lines = dict.fromkeys(json.dumps(record(i), ensure_ascii=False) for i in items)
    path = folder / source.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    packs: dict[Path, set[str]] = defaultdict(set)
    for file in (p for i in items for p in i.parts if isinstance(p, MediaFile)):
        packs[file.path].add(file.member)
    for pack, members in packs.items():
        copy_members(pack, sorted(members), folder / pack.relative_to(corpus))
    return [source.file, *(p.relative_to(corpus).as_posix() for p in packs)]


def record(item: Item) -> dict[str, Any]:
    """The record as the corpus has it; emoji have one for all styles."""
    return {k: v for k, v in item.meta.items() if not (item.source == "emoji" and k == "style")}


def copy_members(pack: Path, members: Sequence[str], target: Path) -> None:
    """A stored archive of the members, the same bytes every time."""
    with zipfile.ZipFile(pack) as full, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as small:
        for member in members:
            small.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), full.read(member))


# -------------------------------------------------------------------------------------------------- the credits

PARTS = {"motion": "video_motion", "stories": "text_stories", "definitions": "text_definitions"}  # else by source
UPSTREAM = {"emoji": ("MIT-emojibase", "Unicode-3.0"), "definitions": ("WordNet",)}  # licences of names and of senses
DERIVED = ("scenes", "motion")  # drawn from emoji


@dataclass(frozen=True)
class Credit:
    """Who made a part of the sample, and on what terms it is here."""

    source: str
    title: str
    items: int
    files: list[str]
    licenses: list[str]
    attribution: str
    origin: str
    changed: str


@dataclass(frozen=True)
class Work:
    """A story and the people who made it."""

    item: str
    title: str
    author: str
    illustrator: str
    license: str
    url: str


def credit(source: str, files: list[str], items: Sequence[Item], parts: dict[str, Any]) -> Credit:
    part = parts[PARTS.get(source, source)]
    attribution = part["attribution"].replace("none needed", "Spoken by espeak-ng for this corpus; none needed")
    if source in DERIVED:
        attribution = f"Drawn by a program from emoji: {parts['emoji']['attribution']}"
    origin = "; ".join(_origin(s) for s in part.get("sources", []))
    licenses = [*sorted({i.license for i in items}), *UPSTREAM.get(source, ())]
    changed = f"{part['transform']}; a few items taken"
    return Credit(source, part["title"], len(items), files, licenses, attribution, origin, changed)


def _origin(source: dict[str, str]) -> str:
    return f"{source['repo']}@{source['commit'][:12]}" if "repo" in source else "generated"


def works(items: Sequence[Item]) -> Iterator[Work]:
    for item in items:
        if "author" in item.meta:
            by = (str(item.meta.get(k) or "") for k in ("title", "author", "illustrator", "license", "url"))
            yield Work(item.id, *by)


HEAD = """# A sample of the corpus

{count} items in the corpus's own layout, chosen by rule and hash with `scripts/make_sample.py`, so that every task can
be tried, trained and shown without any download. `split.json` says which shares of its groups are held out: the model
that ships has never been trained on those. `credits.json` holds the tables below for programs.

The files keep the licences of their sources, whose texts are in `LICENSES/`; CC BY-SA material stays CC BY-SA.
`README.md`, `split.json`, `credits.json` and `manifest.json` are part of mio (Apache-2.0).

"""


def readme(credits: Sequence[Credit], named: Sequence[Work]) -> str:
    count = sum(c.items for c in credits)
    parts = [
        (c.source, c.title, c.items, ", ".join(c.files), ", ".join(c.licenses), c.attribution, c.origin, c.changed)
        for c in credits
    ]
    people = [(w.item, w.title, w.author, w.illustrator, w.license, w.url) for w in named]
    first = table(("source", "what", "items", "files", "licence", "attribution", "origin", "changed"), parts)
    second = table(("item", "title", "author", "illustrator", "licence", "url"), people)
    return HEAD.format(count=count) + first + "\n## Stories\n\n" + second


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# ----------------------------------------------------------------------------------------------------- the sample


def write_sample(corpus: Path, folder: Path) -> None:
    data = tiny().data
    chosen = ids(choose(*split(read_corpus(corpus), data.held_out, data.split_seed)))
    parts = {p["id"]: p for p in json.loads((corpus / "MANIFEST.json").read_text(encoding="utf-8"))["parts"]}
    credits, named = list[Credit](), list[Work]()
    for source in CORPUS:
        items = [i for i in source.items(corpus) if i.id in chosen]
        if items:
            credits.append(credit(source.name, write_source(folder, corpus, source, chosen), items, parts))
            named += works(items)
    (folder / "LICENSES").mkdir()
    for name in sorted({name for c in credits for name in c.licenses}):
        shutil.copyfile(corpus / "LICENSES" / f"{name}.txt", folder / "LICENSES" / f"{name}.txt")
    (folder / "README.md").write_text(readme(credits, named), encoding="utf-8")
    write_json(folder / "split.json", {"held_out": data.held_out, "seed": data.split_seed})
    write_json(folder / "credits.json", {"parts": [asdict(c) for c in credits], "works": [asdict(w) for w in named]})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the corpus folder")
    parser.add_argument("out", type=Path, help="the sample's folder; one that is there is replaced")
    args = parser.parse_args()
    if args.out.exists() and not (args.out / "split.json").is_file():
        raise MioError(f"{args.out} is there and is no sample.", fix="Name a new folder.")
    commit(args.out, partial(write_sample, args.corpus))
    print(f"{sum(p.stat().st_size for p in args.out.rglob('*') if p.is_file()):,} bytes in {args.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
