"""config.py: a tree of dataclasses survives every way out and in, and what it cannot hold is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.config import dump_yaml, from_dict, load_yaml, override, suggest, to_dict
from mio.recipe import Recipe
from mio.recipes.tiny import tiny
from mio.types import MioError


@dataclass(frozen=True)
class Inner:
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    kind: Literal["cosine", "constant"] = "cosine"


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 10
    optim: Inner = Inner()
    stages: tuple[Inner, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    bf16: bool = True


numbers = st.floats(allow_nan=False)
inners = st.builds(Inner, numbers, st.tuples(numbers, numbers), st.sampled_from(["cosine", "constant"]))
outers = st.builds(
    Outer,
    st.text(),
    st.integers(),
    inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(), numbers, max_size=3),
    st.none() | st.text(),
    st.booleans(),
)


@given(outers)
def test_from_dict_inverts_to_dict(config: Outer) -> None:
    assert from_dict(Outer, to_dict(config)) == config


def test_load_yaml_inverts_dump_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    @given(outers)
    def check(config: Outer) -> None:
        path.write_text(dump_yaml(config), encoding="utf-8")
        assert load_yaml(Outer, path) == config

    check()


def test_the_shipped_recipe_survives_yaml(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tiny()), encoding="utf-8")
    assert load_yaml(Recipe, path) == tiny()


@pytest.mark.parametrize(
    ("data", "at", "fix"),
    [
        ({"name": "x", "stesp": 1}, "'stesp'", "Did you mean 'steps'?"),
        ({"name": "x", "optim": {"beta": 1}}, "'optim.beta'", "Did you mean 'betas'?"),
        ({"name": "x", "optim": {"zzz": 1}}, "'optim.zzz'", "Known: betas, kind, lr."),
        ({"name": "x", "stages": [{}, {"l": 1}]}, "'stages[1].l'", "Did you mean 'lr'?"),
        ({"name": "x", 3: 4}, "'3'", "Known: bf16, name, note, optim, shares, stages, steps."),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(data: dict[Any, Any], at: str, fix: str) -> None:
    with pytest.raises(MioError, match="Unknown key") as caught:
        from_dict(Outer, data)
    assert at in str(caught.value)
    assert caught.value.fix == fix


def test_a_missing_key_is_named() -> None:
    with pytest.raises(MioError, match="Outer lacks name"):
        from_dict(Outer, {"steps": 1})


@pytest.mark.parametrize(
    ("key", "value", "at"),
    [
        ("name", 3, "name"),
        ("steps", "ten", "steps"),
        ("steps", 1.5, "steps"),
        ("steps", True, "steps"),
        ("bf16", 1, "bf16"),
        ("note", 3, "note"),
        ("optim", 3, "optim"),
        ("optim", {"lr": "fast"}, "optim.lr"),
        ("optim", {"lr": True}, "optim.lr"),
        ("optim", {"betas": 0.9}, "optim.betas"),
        ("optim", {"betas": [0.9]}, "optim.betas"),
        ("optim", {"betas": [0.9, "x"]}, "optim.betas[1]"),
        ("optim", {"kind": "linear"}, "optim.kind"),
        ("stages", [{}, 3], "stages[1]"),
        ("shares", 3, "shares"),
        ("shares", {"a": None}, "shares.a"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(key: str, value: object, at: str) -> None:
    with pytest.raises(MioError) as caught:
        from_dict(Outer, {"name": "x", key: value})
    assert caught.value.at == at
    assert at in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=20", Outer("x", steps=20, stages=(Inner(), Inner()))),
        ("optim.lr=1e-4", Outer("x", optim=Inner(1e-4), stages=(Inner(), Inner()))),
        ("optim.betas=[0.8, 0.99]", Outer("x", optim=Inner(betas=(0.8, 0.99)), stages=(Inner(), Inner()))),
        ("optim.betas.1=0.5", Outer("x", optim=Inner(betas=(0.9, 0.5)), stages=(Inner(), Inner()))),
        ("stages.1.kind=constant", Outer("x", stages=(Inner(), Inner(kind="constant")))),
        ("note=a=b", Outer("x", note="a=b", stages=(Inner(), Inner()))),
        ("note=null", Outer("x", stages=(Inner(), Inner()))),
        ("stages=[]", Outer("x")),
    ],
)
def test_override_changes_the_field_at_a_path(assignment: str, expected: Outer) -> None:
    assert override(Outer("x", stages=(Inner(), Inner())), [assignment]) == expected


@given(outers)
def test_override_without_assignments_changes_nothing(config: Outer) -> None:
    assert override(config, []) == config


def test_a_dictionary_is_overridden_by_key() -> None:
    assert override(Outer("x", shares={"a b": 1.0}), ["shares.a b=2"]).shares == {"a b": 2.0}


@pytest.mark.parametrize(
    ("assignment", "fix"),
    [
        ("optim.l=3", "Did you mean 'lr'?"),
        ("stages.2.lr=3", "Numbers 0 to 1 exist."),
        ("stages.-1.lr=3", "Numbers 0 to 1 exist."),
        ("steps", "Write it as path.to.field=value."),
        ("optim.betas=[1,", "Write the value as YAML."),
    ],
)
def test_an_assignment_that_cannot_be_is_refused_with_a_way_out(assignment: str, fix: str) -> None:
    with pytest.raises(MioError) as caught:
        override(Outer("x", stages=(Inner(), Inner())), [assignment])
    assert caught.value.fix == fix


@pytest.mark.parametrize("text", [b"name: [", b"\xff\xfe\x00", b"- a\n- b\n", b""])
def test_a_file_that_holds_no_configuration_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(text)
    with pytest.raises(MioError):
        load_yaml(Outer, tmp_path / "bad.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MioError, match=r"Cannot read none\.yaml"):
        load_yaml(Outer, tmp_path / "none.yaml")


def test_suggest_names_the_nearest_word_or_all() -> None:
    assert suggest("imgae", ["image", "speech"]) == "Did you mean 'image'?"
    assert suggest("qqq", ["speech", "image"]) == "Known: image, speech."
