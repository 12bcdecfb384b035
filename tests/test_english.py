"""Words are compared as Whisper's evaluation writes them: the pairs of its own tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mio.evals import english
from mio.evals.english import spelt
from mio.types import MissingError

CASES = json.loads((Path(__file__).parent / "data" / "whisper_normalizer.json").read_text(encoding="utf-8"))["cases"]


def test_texts_become_what_whispers_tests_say() -> None:
    assert len(CASES) == 60
    assert spelt([said for said, _ in CASES]) == [wanted for _, wanted in CASES]


def test_what_is_normal_stays() -> None:
    once = spelt(["Mr. Park's colour, uh, is twenty-one! [laughs]", ""])
    assert once == ["mister park is color is 21", ""] and spelt(once) == once


def test_without_transformers_its_absence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(english, "import_module", gone)
    english._normaliser.cache_clear()
    with pytest.raises(MissingError, match="need transformers"):
        spelt(["a"])
    english._normaliser.cache_clear()
