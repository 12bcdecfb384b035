"""Rules by declaration: what goes is counted and shown with its reason, and the rest keeps its order."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model
from numpy.testing import assert_array_equal

from mio.cli import main
from mio.config import from_dict
from mio.data.filters import language, letters, word_length
from mio.data.keep import EXAMPLES, RULES, Keep, Sieve, Thing, beside, joined
from mio.data.listing import PAPER, DataSet
from mio.evals.dropped import sections
from mio.media import encode_image, read_image
from mio.types import Audio, Document, Image, Message, MioError, MissingError, Sample, Text, Turns

SAMPLE = Path(__file__).parents[1] / "src" / "mio" / "assets" / "sample"
ROOT = Path(__file__).parents[1]


def picture(height: int, width: int) -> Image:
    return Image(np.full((height, width, 3), 99, np.uint8))


def document(*parts: Text | Image | Audio, inputs: frozenset[int] = frozenset()) -> Sample:
    return Sample("x", Document(parts, inputs))


WIDE, FINE = picture(10, 30), picture(10, 20)


def test_a_language_is_told_by_its_common_words() -> None:
    texts = {
        "en": "The fox ran to the house and it was late.",
        "de": "Der Fuchs lief zu dem Haus und es war spät.",
        "fr": "Le renard est dans la maison avec une poule.",
        "es": "El zorro corre por la casa y no es tarde.",
    }
    for name, text in texts.items():
        assert not language(name)(text)
        for other in texts.keys() - {name}:
            assert language(other)(text) == f"reads like {name}, not {other}"
    assert not language("de")("Tschüss!")  # nothing tells
    with pytest.raises(MioError, match="No words of 'xx'"):
        language("xx")


def test_texts_of_numbers_and_of_odd_words_go() -> None:
    assert not letters(0.8)("a b c d 5") and letters(0.8)("a b c 5 6") == "60% of the words have letters < 80%"
    assert not word_length(3, 10)("seven foxes") and word_length(3, 10)("a b") and word_length(3, 10)("x" * 11)


def test_every_rule_of_the_declaration_is_one_of_the_table() -> None:
    names = {name for rules in RULES.values() for name in rules} | {"clip"}
    assert names == set(Keep.__dataclass_fields__)
    assert from_dict(Keep, {"aspect": 2, "words": [2, 3]}) == Keep(aspect=2, words=(2, 3))
    with pytest.raises(MioError) as caught:
        from_dict(Keep, {"aspct": 2})
    assert "aspect" in caught.value.fix


def test_a_medium_that_goes_takes_a_pair_and_a_conversation_but_not_a_document_with_others() -> None:
    sieve, text = Sieve(Keep(aspect=2)), Text("words")
    pair = document(WIDE, text)
    talk = Sample("x", Turns((Message("user", (FINE, WIDE, text)),)))
    assert sieve.without(pair, 1) is None and sieve.without(talk, 2) is None
    fine = document(FINE, text)
    assert sieve.without(fine, 3) is fine
    left = sieve.without(document(text, WIDE, FINE, text, inputs=frozenset({1, 2})), 4)
    assert left is not None and left.content == Document((text, FINE, text), frozenset({1}))
    account = sieve.account()["aspect"]
    assert (account["seen"], account["dropped"]) == (6, 3)
    assert [e["line"] for e in account["examples"]] == [1, 2, 4]
    assert all(e["why"] == "aspect 3.00:1 > 2:1" and e["text"] == "words" for e in account["examples"])


def test_only_media_of_its_kind_meet_a_rule_and_texts_meet_theirs() -> None:
    sieve = Sieve(Keep(side=8, seconds=1, words=(2, 9)))
    sound = Audio(np.zeros(20, np.float32), 10)
    assert sieve.without(document(sound, Text("a")), 1) is None and sieve.without(document(FINE, Text("a")), 1)
    assert not sieve.keeps_text(document(FINE, Text("a")), 1) and sieve.keeps_text(document(Text("a"), Text("b")), 1)
    assert sieve.keeps_text(document(FINE), 1)  # there is nothing to judge
    seen = {name: (a["seen"], a["dropped"]) for name, a in sieve.account().items()}
    assert seen == {"words": (2, 1), "side": (1, 0), "seconds": (1, 1)}


def test_a_score_is_of_a_picture_and_the_text_beside_it() -> None:
    asked = list[tuple[int, str]]()

    def scorer(image: Image, text: str) -> float:
        asked.append((image.pixels.shape[1], text))
        return 0.3 if text == "fits" else 0.1

    sieve = Sieve(PAPER["interleaved"], scorer)
    left = sieve.without(document(Text("fits"), WIDE, Text("not"), FINE, Text(" ")), 1)
    assert left is None and asked == [(30, "not"), (20, "not")]
    kept = sieve.without(document(WIDE, Text("fits"), FINE, Text("not")), 1)
    assert kept is not None and kept.content == Document((WIDE, Text("fits"), Text("not")))
    assert sieve.without(document(WIDE), 1)  # without any text there is nothing to score
    assert beside((WIDE,), 0) == ""
    with pytest.raises(MissingError, match="no CLIP"):
        Sieve(PAPER["image-text"])


def test_accounts_add_up_and_keep_the_first_examples() -> None:
    def account(start: int, count: int) -> dict[str, dict[str, object]]:
        sieve = Sieve(Keep(words=(1, 1)))
        for n in range(start, start + count):
            sieve.keeps(Thing(Sample(str(n), Document(())), n, "two words"))
        return sieve.account()

    whole = joined([account(0, 3), account(3, 9), account(12, 0)])
    assert whole["words"]["seen"] == whole["words"]["dropped"] == 12
    assert [e["line"] for e in whole["words"]["examples"]] == list(range(EXAMPLES))


def test_the_page_shows_examples_and_no_text_becomes_markup() -> None:
    sieve = Sieve(Keep(aspect=2, seconds=1))
    sieve.without(document(picture(200, 900), Text("<script>")), 7)
    sieve.without(document(Audio(np.zeros(32000, np.float32), 16000), Text("said")), 8)
    html = sections({"pairs": sieve.account()})
    assert "<script>" not in html and "&lt;script&gt;" in html and "aspect 4.50:1" in html
    assert html.count("<section>") == 2 and "<img" in html and "<audio" in html and "record 7" in html
    assert sections({"pairs": Sieve(Keep(aspect=2)).account()}) == ""


def test_one_command_takes_all_kinds_of_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Validate, filter, tokenize, count and show: a few records of each kind of the sample that ships."""
    model = str(fabricate_model(tmp_path / "model"))
    listing = [str(ROOT / "examples" / "corpus.yaml"), "--data", str(SAMPLE), "-n", "2", "--json"]
    assert main(["data", "validate", *listing]) == 0
    assert json.loads(capsys.readouterr().out)["bad"] == 0
    store = tmp_path / "store"
    assert main(["data", "tokenize", *listing, "-o", str(store), "--model", model]) == 0
    facts = json.loads(capsys.readouterr().out)
    rules = {(r["data set"], r["rule"]): (r["seen"], r["dropped"]) for r in facts["rules"]}
    assert rules["image-text pairs, named", "side"] == (4, 2)  # digits have 28 pixels
    assert rules["speech-text pairs", "seconds"] == (4, 0)
    assert main(["data", "stats", str(store), "--model", model, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["sources"]
    tasks = {row["task/source"].partition("/")[0] for row in rows}
    assert tasks >= {"image to text", "text to image", "text", "interleaved", "video to text", "text to speech"}
    page = tmp_path / "page.html"
    assert main(["data", "show", str(store), "--model", model, "-n", "1", "-o", str(page)]) == 0
    assert "Left out of image-text pairs, named: side" in page.read_text()


def test_near_duplicates_are_found_from_file_to_file(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(50))
    for name, more in (("a", ""), ("b", " end")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"words": text + more}) + "\n" + '{"words": "other"}\n')
    one = DataSet("d", ("a.jsonl", "b.jsonl"), "text", {"text": "words"}, keep=Keep(near_duplicates=0.8))
    kept = [[len(samples) for _, samples in job.reading.entries()] for job in one.jobs(tmp_path, "f")]
    assert kept == [[1, 1], [0, 0]]
    with pytest.raises(MioError, match="Unknown key 'txt'"):
        DataSet("d", ("a.jsonl",), "text", {"txt": "words"}).readings(tmp_path)


def test_a_preview_keeps_its_proportions() -> None:
    sieve = Sieve(Keep(side=600))
    sieve.without(document(picture(320, 640), Text("a")), 1)
    (example,) = sieve.account()["side"]["examples"]
    assert_array_equal(read_image(base64.b64decode(example["preview"])).pixels, picture(80, 160).pixels)
    assert len(encode_image(picture(80, 160))) == len(base64.b64decode(example["preview"]))
