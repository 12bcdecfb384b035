"""A model as a folder that an unpatched vLLM serves: a stock one, and the mask of its answers as grammars to send.

vLLM takes a grammar with a request (`structured_outputs`), in llguidance's dialect of Lark, where <[3,7-9]> is any of
these ids. So the mask needs no code of ours in its process, and no string is ever matched: ids alone are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import commit, write_json
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Repeat, then
from mio.decoding.runs import written
from mio.pretrained.export import SHARD, vacant, write_folder
from mio.pretrained.proof import Proof
from mio.pretrained.stock import Outgoing
from mio.sequence import order
from mio.types import DataError, Modality

GRAMMARS = "grammars.json"
STEPS = 250  # of a span of free length, at most: 5 s of speech. Each length is a rule, for no grammar can count


@dataclass(frozen=True)
class Checked:
    """The proof of the stock folder, and how many `grammars` were tried with llguidance; None where that is not
    installed."""

    proof: Proof
    grammars: int | None


def export_vllm(outgoing: Outgoing, out: Path, dtype: str = "", shard: int = SHARD, load: bool = True) -> Checked:
    """As `export`, and beside it one grammar for each kind of answer.

    Raises:
        MioError, DataError, ResourceError: as `export`. DataError: a grammar does not let through what it should.
    """
    vacant(out)
    proofs: list[Checked] = []

    def write(folder: Path) -> None:
        proof = write_folder(outgoing, folder, dtype, shard, load)
        write_json(folder / GRAMMARS, grammars(outgoing))
        proofs.append(Checked(proof, check(outgoing, folder)))
        with (folder / "README.md").open("a", encoding="utf-8") as card:
            card.write(CARD.format(tried=_tried(proofs[0]), steps=STEPS, code="```"))

    commit(out, write)
    return proofs[0]


def grammars(outgoing: Outgoing, steps: int = STEPS) -> dict[str, str]:
    """Kind of answer -> a grammar of the whole of it: text alone, one span of a row, and "any" mixture."""
    rows = [row for row in outgoing.vocab.rows if row.size]
    rules = {"text": f"text: {written(text_ids(outgoing))}"}
    rules |= {row.name: "\n".join(_span(outgoing, row, steps)) for row in rows}
    end = written(np.array([stop(outgoing)]))
    kinds = {name: f"start: {name}{'*' if name == 'text' else ''} {end}\n{rule}" for name, rule in rules.items()}
    return kinds | {"any": f"start: ({' | '.join(rules)})* {end}\n" + "\n".join(rules.values())}


def text_ids(outgoing: Outgoing) -> NDArray[np.int64]:
    vocab = outgoing.vocab
    return np.array([id for id in range(vocab.text_size) if id not in vocab.control_ids])


def stop(outgoing: Outgoing) -> int:
    """The id that ends an answer."""
    return outgoing.vocab.id(outgoing.stop or outgoing.vocab.specials.im_end)


def _span(outgoing: Outgoing, row: Modality, steps: int) -> Iterator[str]:
    """The rules of one span. One of free length is all its lengths, unless a repeated code is as good."""
    begin, end = (written(np.array([id])) for id in outgoing.vocab.bounds(row.name))
    books = 1 if row.output_layout == "content" else row.codebooks
    if row.steps or books == 1:
        codes = _codes(outgoing, row, row.steps) if row.steps else f"{_level(outgoing, row, 0)}+"
        yield f"{row.name}: {begin} {codes} {end}"
        return
    names = [f"{row.name}{n}" for n in range(1, steps + 1)]
    yield f"{row.name}: {begin} ({' | '.join(names)}) {end}"
    for n, name in enumerate(names, 1):
        yield f"{name}: {_codes(outgoing, row, n)}"


def _codes(outgoing: Outgoing, row: Modality, steps: int) -> str:
    """So many steps in the row's layout."""
    levels, _ = order(row.output_layout, row.codebooks, steps)
    return " ".join(f"{_level(outgoing, row, level)}{{{len([*run])}}}" for level, run in groupby(levels.tolist()))


def _level(outgoing: Outgoing, row: Modality, level: int) -> str:
    return written(outgoing.vocab.level_ids(row.name)[level])


# ------------------------------------------------------------------------------------------------------- its check


def check(outgoing: Outgoing, folder: Path) -> int | None:
    """Walk every written grammar beside our own, with the folder's tokenizer; how many there were.

    Raises:
        DataError: one lets through other ids than ours.
    """
    if not (find_spec("llguidance") and find_spec("transformers")):
        return None
    import llguidance
    import llguidance.hf
    import transformers

    held: dict[str, str] = json.loads((folder / GRAMMARS).read_text(encoding="utf-8"))
    kind: Any = transformers.PreTrainedTokenizerFast
    tokenizer = llguidance.hf.from_tokenizer(kind.from_pretrained(folder), len(outgoing.vocab))
    for name, grammar in held.items():
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.get_error():
            raise DataError(f"llguidance cannot read the grammar of {name}: {matcher.get_error()}", at=str(folder))
        _compare(outgoing, name, matcher)
    return len(held)


def _compare(outgoing: Outgoing, name: str, matcher: Any) -> None:
    """An answer of our own grammar, at random, against the mask at every step of it."""
    own, dice = answer_grammar(outgoing, name), np.random.default_rng(0)
    while not own.finished:
        allowed = own.allowed()
        found = np.flatnonzero(np.frombuffer(matcher.compute_bitmask(), np.uint8)[:, None] >> np.arange(8) & 1)
        if not np.array_equal(np.sort(allowed), found[found < len(outgoing.vocab)]):
            raise DataError(f"The grammar of {name} lets other ids through than mio does.")
        id = int(dice.choice(allowed[-1:] if dice.random() < 0.1 else allowed))
        own.take(id)
        matcher.consume_token(id)
    if not matcher.is_accepting():
        raise DataError(f"The grammar of {name} does not end where mio's does.")


def answer_grammar(outgoing: Outgoing, name: str, tokens: int = 10**6) -> Grammar:
    """What mio lets through for such an answer, with room that never runs out."""
    vocab = outgoing.vocab
    rules = [
        SpanRule(row.name, *vocab.bounds(row.name), vocab.level_ids(row.name), row.output_layout, row.steps)
        for row in vocab.rows
        if row.size
    ]
    words = Repeat(One("text"), 0, None)
    spans = [Repeat(One(rule.name), 0, None) for rule in rules]
    pattern = {"text": words, "any": Repeat(then(words, *spans), 0, None)}.get(name, One(name))
    return Grammar(rules, text_ids(outgoing), stop(outgoing), Limits(tokens, pattern, STEPS))


def _tried(checked: Checked) -> str:
    if checked.grammars is None:
        return "llguidance was not installed, so the grammars were written, but not tried."
    return f"All {checked.grammars} grammars were walked with llguidance: at every step they let through what mio does."


CARD = """

---

# Served by vLLM

{code}bash
vllm serve DIR --structured-outputs-config.backend guidance
mio serve --engine openai --base-url http://127.0.0.1:8000/v1 --port 9000      # in front of it: media, page, API
{code}

`mio serve` tokenizes media, sends ids with the mask of what may come, and turns ids into media again. Without it, send
one of `grammars.json` yourself, and `mio detokenize` the ids that come back:

{code}python
import json
from openai import OpenAI

grammar = json.load(open("DIR/grammars.json"))["image"]  # or "text", "any", any other kind
client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
extra = {{"structured_outputs": {{"grammar": grammar}}, "return_token_ids": True}}
messages = [{{"role": "user", "content": "Draw a cat."}}]
reply = client.chat.completions.create(model="DIR", messages=messages, max_tokens=400, extra_body=extra)
print(reply.choices[0].token_ids)
{code}

These grammars know no budget: an answer that `max_tokens` ends may break off in a span. A span of free length has at
most {steps} steps. {tried}
"""
