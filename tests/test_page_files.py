"""The page's files among themselves: no browser needed."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

PAGE = Path(str(files("mio") / "serve" / "page"))
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir())}
HTML = TEXTS["index.html"]
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"}


def test_markup_holds_neither_scripts_nor_styles_nor_handlers_of_its_own() -> None:
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", HTML)
    assert re.findall(r"<script[^>]*>(.*?)</script>", HTML, re.S) == [""]


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, text in TEXTS.items():
        found = set(re.findall(r"https?://[\w.]+[\w./#-]*", text)) - NAMESPACES
        assert all("iptc.org" in url for url in found), (name, found)
    linked = re.findall(r"""(?:src|href)="([^#"]+)"|from '([^']+)'""", HTML + "".join(SCRIPTS.values()))
    assert {(a or b).removeprefix("./") for a, b in linked} <= TEXTS.keys()


def test_no_script_turns_text_into_markup_or_code() -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert not [name for name, text in SCRIPTS.items() if re.search(forbidden, text)]


def test_every_element_and_pictogram_that_scripts_name_exists() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', HTML))
    named = {id for text in SCRIPTS.values() for id in re.findall(r"\bfind\('([^']+)'\)", text)}
    icons = {icon for text in SCRIPTS.values() for icon in re.findall(r"\b(?:icon|iconButton)\('([^']+)'", text)}
    assert len(named) > 40 and named <= ids
    assert len(icons) > 8 and {f"i-{icon}" for icon in icons} <= ids
    assert set(re.findall(r'<use href="#([^"]+)"', HTML)) <= ids


def test_every_class_that_scripts_set_has_a_style_or_none_is_needed() -> None:
    styles = TEXTS["style.css"] + TEXTS["message.css"]
    used = {c for t in SCRIPTS.values() for names in re.findall(r"class: '([^']+)'", t) for c in names.split()}
    assert used - set(re.findall(r"\.([a-z][\w-]*)", styles)) <= {"model"}


def test_files_stay_small_enough_to_read() -> None:
    lengths = {name: text.count("\n") for name, text in TEXTS.items()}
    assert all(length < 260 for length in lengths.values()), lengths
