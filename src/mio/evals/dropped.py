"""What the rules of data sets left out -> sections of a page: counts, and a few examples with the reason."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

from mio.data.keep import Account
from mio.evals.forms import FORMS
from mio.media import read


def sections(accounts: Mapping[str, Account]) -> str:
    """One for every rule of every data set that dropped something."""
    return "".join(
        _section(f"Left out of {name}: {rule}", account)
        for name, rules in accounts.items()
        for rule, account in rules.items()
        if account["dropped"]
    )


def _section(title: str, account: Mapping[str, Any]) -> str:
    share = f"{account['dropped']:,} of {account['seen']:,} ({account['dropped'] / account['seen']:.1%})"
    cards = "".join(map(_card, account["examples"]))
    return f"<section><h2>{escape(title)} <small>{share}</small></h2><ol>{cards}</ol></section>"


def _card(example: Mapping[str, Any]) -> str:
    shown = _medium(example["preview"], example["why"]) if "preview" in example else ""
    foot = "".join(f"<span>{escape(fact)}</span>" for fact in (example["id"], f"record {example['line']}"))
    words = f'<span class="fault">{escape(example["why"])}</span>\n{escape(example["text"])}'
    return f'<li><div class="content">{shown}{words}</div><footer>{foot}</footer></li>'


def _medium(preview: str, why: str) -> str:
    media = read(base64.b64decode(preview))
    form = FORMS[type(media)]
    return form.shown(form.encode(media), why)
