"""data/readers.py: the same samples out of every kind of file; nothing hostile gets out of an archive."""

from __future__ import annotations

import builtins
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import soundfile

from mio.data.faults import Reading, check_media
from mio.data.formats import FORMATS, format_named
from mio.data.readers import MAX_LINE, reader_of
from mio.media import Limits, encode_image
from mio.processor import open_media
from mio.types import DataError, Document, Image, MediaBytes, MediaFile, MioError, MissingError, Text, Turns

CAPTIONS = ("a red square", "zwei Füße", "grün")


def picture(number: int) -> bytes:
    return encode_image(Image(np.full((8, 8, 3), 40 * number, np.uint8)))


def tar_of(
    path: Path, members: Mapping[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None
) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            tar.addfile(info, io.BytesIO(data))
    return path


def as_tar(root: Path) -> Path:
    members: dict[str, bytes] = {}
    for n, caption in enumerate(CAPTIONS):
        members[f"a/{n}.png"] = picture(n)
        members[f"a/{n}.txt"] = caption.encode()
    return tar_of(root / "pairs.tar", members)


def as_tar_with_facts(root: Path) -> Path:
    members: dict[str, bytes] = {}
    for n, caption in enumerate(CAPTIONS):
        members[f"{n}.json"] = json.dumps({"caption": caption}).encode()
        members[f"{n}.png"] = picture(n)
    return tar_of(root / "facts.tar", members)


def as_folder(root: Path) -> Path:
    folder = root / "pairs"
    folder.mkdir()
    for n, caption in enumerate(CAPTIONS):
        (folder / f"{n}.PNG").write_bytes(picture(n))
        (folder / f"{n}.txt").write_text(f"{caption}\n", encoding="utf-8")
    (folder / "README.md").touch()
    return folder


def as_table(root: Path) -> Path:
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(len(CAPTIONS))]
    parquet.write_table(pa.table({"image": images, "caption": list(CAPTIONS)}), root / "pairs.parquet")
    return root / "pairs.parquet"


def as_lines(root: Path) -> Path:
    lines = []
    for n, caption in enumerate(CAPTIONS):
        (root / f"{n}.png").write_bytes(picture(n))
        lines.append(json.dumps({"image": f"{n}.png", "caption": caption}))
    (root / "pairs.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    return root / "pairs.jsonl"


@pytest.mark.parametrize("make", [as_tar, as_tar_with_facts, as_folder, as_table, as_lines])
def test_the_same_pairs_come_out_of_every_kind_of_file(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    reading = Reading(path, FORMATS["captions"] if path.suffix == ".jsonl" else None, check_media)
    samples = list(reading.samples())
    assert (reading.faults, reading.seen) == ([], len(CAPTIONS))
    assert len({sample.id for sample in samples}) == len(CAPTIONS)
    for n, sample in enumerate(samples):
        assert isinstance(sample.content, Document)
        medium, text = sample.content.parts
        assert isinstance(medium, MediaFile | MediaBytes) and isinstance(text, Text)
        media = open_media(medium)
        assert isinstance(media, Image)
        assert (text.text, int(media.pixels.max())) == (CAPTIONS[n], 40 * n)


def test_librispeech_utterances_lie_beside_their_transcripts(tmp_path: Path) -> None:
    for chapter in ("84/121123", "84/121550"):
        folder = tmp_path / "dev" / chapter
        folder.mkdir(parents=True)
        name = chapter.replace("/", "-")
        (folder / f"{name}.trans.txt").write_text(f"{name}-0000 GO DO YOU HEAR\n{name}-0001 BUT IN LESS\nbroken\n")
        for number in range(2):
            soundfile.write(folder / f"{name}-000{number}.flac", np.zeros(800, np.int16), 16000)
    reading = Reading(tmp_path / "dev", None, check_media)
    assert [s.id for s in reading.samples()] == [
        f"dev/84-{chapter}-000{n}" for chapter in (121123, 121550) for n in range(2)
    ]
    assert [f.line for f in reading.faults] == [3, 6]
    sheet = tmp_path / "dev" / "84" / "121123" / "84-121123.trans.txt"
    assert [s.content.parts[1].text for s in Reading(sheet).samples()] == ["GO DO YOU HEAR", "BUT IN LESS"]  # type: ignore[union-attr]


@pytest.mark.parametrize("ends", [("Yes.", "No."), ([{"role": "assistant", "content": "Yes."}], "No.")])
def test_a_preference_is_two_conversations_that_begin_alike(tmp_path: Path, ends: tuple[object, object]) -> None:
    (tmp_path / "0.png").write_bytes(picture(0))
    record = {"prompt": "<image>Red?", "images": ["0.png"], "chosen": ends[0], "rejected": ends[1]}
    (tmp_path / "likes.jsonl").write_text(json.dumps(record))
    samples = list(Reading(tmp_path / "likes.jsonl", FORMATS["preference"], check_media).samples())
    assert [(s.id, s.meta) for s in samples] == [
        ("likes/1/chosen", {"part": "chosen"}),
        ("likes/1/rejected", {"part": "rejected"}),
    ]
    chosen, rejected = (s.content for s in samples)
    assert isinstance(chosen, Turns) and isinstance(rejected, Turns)
    assert chosen.messages[:-1] == rejected.messages[:-1]
    assert [c.messages[-1].parts for c in (chosen, rejected)] == [(Text("Yes."),), (Text("No."),)]


# ------------------------------------------------------------------------------------------------- hostile archives


def turned_into(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        if info.name.startswith("bad"):
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    return change


GOOD = {"good.png": picture(1), "good.txt": b"good"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_file_costs_its_own_sample(tmp_path: Path, kind: bytes) -> None:
    members = {"bad.png": b"", "bad.txt": b"caption", **GOOD}
    reading = Reading(tar_of(tmp_path / "x.tar", members, turned_into(kind)), None, check_media)
    assert [s.id for s in reading.samples()] == ["x/good"]
    assert [f.line for f in reading.faults] == [1] and "link" in reading.faults[0].what


@pytest.mark.parametrize("name", ["../out.png", "/abs.png", "a/../../out.png"])
def test_a_member_that_leads_out_of_the_archive_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    reading = Reading(tar_of(folder / "x.tar", {name: picture(0), **GOOD}), None, check_media)
    assert [s.id for s in reading.samples()] == ["x/good"]
    assert "leads out" in reading.faults[0].what
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["data", "x.tar"]


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    good = tar_of(tmp_path / "good.tar", GOOD).read_bytes()
    info = tarfile.TarInfo("bad.png")
    info.size = Limits().bytes + 512
    with (tmp_path / "x.tar").open("wb") as file:  # with a hole in it, so that it takes no room
        file.write(info.tobuf())
        file.seek(info.size, io.SEEK_CUR)
        file.write(good)
    reading = Reading(tmp_path / "x.tar", None, check_media)
    assert [s.id for s in reading.samples()] == ["x/good"]
    assert [f.line for f in reading.faults] == [1] and "at most" in reading.faults[0].what


def test_a_member_that_claims_more_than_the_archive_has_ends_it(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bad.png")
    info.size = 2**32
    (tmp_path / "x.tar").write_bytes(info.tobuf() + tar_of(tmp_path / "good.tar", GOOD).read_bytes())
    reading = Reading(tmp_path / "x.tar")
    assert list(reading.samples()) == []
    assert "damaged" in reading.faults[0].what


@pytest.mark.parametrize("cut", [700, 1400, -9000])
def test_a_tar_that_is_cut_short_or_damaged_says_so(tmp_path: Path, cut: int) -> None:
    path = tar_of(
        tmp_path / "x.tar", {f"{n}.{s}": d for n in range(4) for s, d in (("png", picture(n)), ("txt", b"t"))}
    )
    path.write_bytes(path.read_bytes()[:cut])
    reading = Reading(path)
    assert len(list(reading.samples())) < 4
    assert "damaged" in reading.faults[-1].what


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", {**GOOD, "next.png": picture(1), "next.txt": b"next"})
    data = bytearray(path.read_bytes())
    data[data.index(b"next.png") + 100] ^= 1  # its mode, which the checksum covers
    path.write_bytes(data)
    reading = Reading(path)
    assert [s.id for s in reading.samples()] == ["x/good"]
    assert [f.line for f in reading.faults] == [2]


def test_folders_in_a_tar_are_no_samples(tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type = tarfile.DIRTYPE if info.name.endswith("/") else tarfile.REGTYPE

    members = {"./": b"", "./a/": b"", **{f"./a/{name}": data for name, data in GOOD.items()}}
    reading = Reading(tar_of(tmp_path / "x.tar", members, change), None, check_media)
    assert [s.id for s in reading.samples()] == ["x/./a/good"]
    assert reading.faults == []


def test_a_compressed_tar_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz"):
        pass
    reading = Reading(tmp_path / "x.tar")
    assert list(reading.samples()) == []
    assert "no plain tar" in reading.faults[0].what


def test_members_that_stand_twice_are_a_fault(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for text in (b"one", b"two"):
            info = tarfile.TarInfo("a.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    reading = Reading(tmp_path / "x.tar")
    assert list(reading.samples()) == []
    assert "twice" in reading.faults[0].what


def test_a_zip_member_that_would_unpack_to_more_than_is_read_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(100_000))
        archive.writestr("good.png", picture(1))
    limits = Limits(bytes=1000)
    with pytest.raises(DataError, match="unpack to 100,000 bytes"):
        open_media(MediaFile(tmp_path / "x.zip", "image", "bomb.png"), limits)
    assert isinstance(open_media(MediaFile(tmp_path / "x.zip", "image", "good.png"), limits), Image)


def test_bytes_that_cannot_be_read_are_named() -> None:
    with pytest.raises(DataError) as caught:
        open_media(MediaBytes(b"no picture", "image", "row 7"))
    assert caught.value.at == "row 7"


# ----------------------------------------------------------------------------------------------- what is not there


def test_a_long_line_a_long_caption_and_a_linked_caption_are_faults(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    (folder / "1.txt").write_bytes(b"x" * (MAX_LINE + 1))
    (folder / "2.txt").unlink()
    (folder / "2.txt").symlink_to("0.txt")
    reading = Reading(folder)
    assert [s.id for s in reading.samples()] == ["pairs/0"]
    assert [f.line for f in reading.faults] == [2, 3]


def test_a_damaged_table_is_a_fault(tmp_path: Path) -> None:
    path = as_table(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    reading = Reading(path)
    assert list(reading.samples()) == []
    assert "damaged" in reading.faults[0].what


def test_without_pyarrow_a_table_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingError, match="pyarrow") as caught:
        list(Reading(as_lines(tmp_path).rename(tmp_path / "x.parquet")).samples())
    assert "mio[data]" in caught.value.fix


def test_files_that_nothing_reads_and_formats_that_nobody_knows_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    with pytest.raises(DataError, match="Nothing reads"):
        reader_of(tmp_path / "x.csv")
    with pytest.raises(MissingError):
        reader_of(tmp_path / "none.jsonl")
    with pytest.raises(MioError) as caught:
        format_named("mesages")
    assert "messages" in caught.value.fix
