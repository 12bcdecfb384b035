"""Public formats -> samples: placeholders find their media, order stays, and no path leaves its folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.data.formats import FORMATS, PLACEHOLDERS, Columns, Conversation, Segments, Sentences, media_file, packed
from mio.types import DataError, Document, MediaFile, MissingError, Part, Text, Turns

COLUMN = {"image": "images", "speech": "audios", "video": "videos"}
MARK = {kind: mark for mark, kind in PLACEHOLDERS.items()}
words = st.text("ab <>é\u2028", min_size=1, max_size=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "data"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).touch()
    (folder.parent / "secret").touch()
    (folder / "link").symlink_to(folder.parent / "secret")
    return folder


def names(parts: tuple[Part, ...]) -> list[str]:
    """Texts as they are, media as KIND:NAME."""
    return [p.text if isinstance(p, Text) else f"{p.modality}:{p.path.name}" for p in parts if is_known(p)]


def is_known(part: Part) -> bool:
    return isinstance(part, Text | MediaFile)


turn = st.lists(st.one_of(words, st.tuples(st.sampled_from(sorted(MARK)), st.integers(0, 7))), max_size=6)


@given(st.lists(turn, min_size=1, max_size=4))
def test_placeholders_and_parts_name_the_same_conversation(
    root: Path, turns: list[list[str | tuple[str, int]]]
) -> None:
    lists: dict[str, list[str]] = {column: [] for column in COLUMN.values()}
    marked, typed = [], []
    for number, pieces in enumerate(turns):
        role = ("user", "assistant")[number % 2]
        merged = [p for n, p in enumerate(pieces) if not (isinstance(p, str) and n and isinstance(pieces[n - 1], str))]
        for piece in merged:
            if not isinstance(piece, str):
                lists[COLUMN[piece[0]]].append(str(piece[1]))
        text = "".join(p if isinstance(p, str) else MARK[p[0]] for p in merged)
        marked.append({"role": role, "content": text})
        typed.append({"role": role, "content": [typed_part(p) for p in merged]})
    format = Conversation()
    first, second = format.read({"messages": marked, **lists}, root), format.read({"messages": typed}, root)
    assert first == second


def typed_part(piece: str | tuple[str, int]) -> dict[str, object]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if piece[0] == "image":
        return {"type": "image_url", "image_url": {"url": str(piece[1])}}
    kind = {"speech": "audio", "video": "video"}[piece[0]]
    return {"type": kind, kind: str(piece[1])}


def test_sharegpt_speaks_of_humans(root: Path) -> None:
    record = {
        "image": "3",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A"}],
    }
    content = FORMATS["sharegpt"].read(record, root)
    assert isinstance(content, Turns)
    assert [(m.role, names(m.parts)) for m in content.messages] == [
        ("user", ["image:3", "\nWhat?"]),
        ("assistant", ["A"]),
    ]


@pytest.mark.parametrize(("text", "images"), [("<image>", []), ("no mark", ["0"]), ("<image><image>", ["0"])])
def test_a_mismatch_of_placeholders_and_media_is_refused(root: Path, text: str, images: list[str]) -> None:
    with pytest.raises(DataError, match="placeholder"):
        Conversation().read({"messages": [{"role": "user", "content": text}], "images": images}, root)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "link", "a\0b", "x/" * 5000])
def test_no_path_leaves_the_folder(root: Path, name: str) -> None:
    with pytest.raises(DataError):
        media_file(name, "image", root)
    assert media_file("0", "image", root).path == root / "0"
    with pytest.raises(MissingError):
        media_file("none", "image", root)


@given(st.lists(st.one_of(words, st.integers(0, 7)), max_size=8))
def test_obelics_keeps_the_order_of_its_columns(root: Path, parts: list[str | int]) -> None:
    texts = [p if isinstance(p, str) else None for p in parts]
    images = [None if isinstance(p, str) else str(p) for p in parts]
    content = Columns().read({"texts": texts, "images": images}, root)
    assert names(content.parts) == [p if isinstance(p, str) else f"image:{p}" for p in parts]


def test_mmc4_puts_pictures_before_their_sentence(root: Path) -> None:
    images = [{"image_name": "1", "matched_text_index": 1}, {"image_name": "2", "matched_text_index": 0}]
    content = Sentences().read({"text_list": ["a", "b"], "image_info": images}, root)
    assert names(content.parts) == ["image:2", "a", "image:1", "b"]
    with pytest.raises(DataError, match="sentence 2 of 2"):
        Sentences().read({"text_list": ["a", "b"], "image_info": [{"image_name": "1", "matched_text_index": 2}]}, root)


def test_a_manifest_is_a_pair_and_names_what_it_lacks(root: Path) -> None:
    content = FORMATS["manifest"].read({"audio_filepath": "5", "text": "yes", "duration": 1.0}, root)
    assert isinstance(content, Document) and names(content.parts) == ["speech:5", "yes"]
    with pytest.raises(DataError, match="no 'text'"):
        FORMATS["manifest"].read({"audio_filepath": "5"}, root)


def test_segments_keep_their_order_and_leave_other_types_out(root: Path) -> None:
    segments = [
        {"type": "image", "image": "1"},
        {"type": "text", "text": "a"},
        {"type": "translation", "text": "b"},
        {"type": "speech", "speech": "2"},
    ]
    assert names(Segments().read({"segments": segments}, root).parts) == ["image:1", "a", "speech:2"]
    with pytest.raises(DataError, match="no 'image'"):
        Segments().read({"segments": [{"type": "image"}]}, root)


def test_media_may_be_members_of_an_archive(root: Path) -> None:
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(root / name, "w") as pack:
            pack.writestr(f"{name[0]}/x.png", b"")
    a, b = root / "a.zip", root / "b.zip"
    assert packed({"pack": "b.zip"}, a) == packed({"pack": "b.zip"}, root) == b
    assert packed({}, a) == packed({"pack": 3}, a) == a
    segments = [{"type": "image", "image": "b/x.png"}, {"type": "video", "video": "a/x.png"}]
    content = Segments().read({"segments": segments, "image_pack": "b.zip"}, a)
    assert content.parts == (MediaFile(b, "image", "b/x.png"), MediaFile(a, "video", "a/x.png"))
    with pytest.raises(MissingError, match="no member"):
        Segments().read({"segments": segments[:1]}, a)
    with pytest.raises(DataError, match="leads out"):
        packed({"pack": "../a.zip"}, a)
