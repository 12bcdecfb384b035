"""A language model elsewhere that marks what answers say, behind any OpenAI-compatible endpoint; every mark is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from mio.checkpoint import read_json
from mio.config import from_dict
from mio.types import DataError, MioError, MissingError

CONFIG, MARKS = "config.json", "marks.jsonl"
HIGHEST = 10
PROMPT = """Compare an answer with the reference and mark from 0 to 10 how much of what the reference says it says.
Words may differ; 0 is wrong or empty, 10 is complete and right. Where the reference joins parts by <AND>, all of them
are needed; of parts joined by <OR>, one is. Reply with the number only.

Question: {question}
Reference: {reference}
Answer: {answer}"""


@dataclass(frozen=True)
class Marking:
    """One answer to mark, all in words."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Endpoint:
    """Where the critic is. `key`: the environment's variable that holds the API key, "" for none."""

    url: str
    model: str
    key: str = ""
    seconds: float = 120.0


class Critic:
    """`folder` holds config.json, an `Endpoint`; beside it grows marks.jsonl, so that nothing is asked twice."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = from_dict(Endpoint, read_json(folder / CONFIG))
        if not re.match(r"https?://", self.endpoint.url):
            raise MioError(f"{self.endpoint.url!r} is no address on the web.", at=str(folder / CONFIG))
        self.file = folder / MARKS
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        self.kept: dict[str, str] = dict(json.loads(line) for line in lines)

    def marks(self, markings: Sequence[Marking]) -> list[float]:
        """Each from 0 to 1.

        Raises:
            MissingError: nobody answers there. DataError: the critic gives no mark.
        """
        return [self._mark(m) for m in markings]

    def _mark(self, marking: Marking) -> float:
        prompt = PROMPT.format_map(vars(marking))
        request = {"model": self.endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if name not in self.kept:
            said = self._asked(request)
            mark_of(said)
            self.kept[name] = said
            with self.file.open("a", encoding="utf-8") as file:
                print(json.dumps([name, said], ensure_ascii=False), file=file)
        return mark_of(self.kept[name])

    def _asked(self, request: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {os.environ.get(self.endpoint.key, '')}"
        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        try:
            with urlopen(
                Request(url, json.dumps(request).encode(), headers), timeout=self.endpoint.seconds
            ) as response:
                return str(json.load(response)["choices"][0]["message"]["content"])
        except (URLError, TimeoutError, ValueError, LookupError, TypeError) as error:
            fix = "Start it, or correct config.json; what is marked is kept."
            raise MissingError(f"The judge does not answer ({error}).", at=url, fix=fix) from error


def mark_of(said: str) -> float:
    """The first number of a reply, of at most 10 -> 0 to 1.

    Raises:
        DataError: there is none.
    """
    found = re.search(r"\d+(?:\.\d+)?", said)
    if found is None or float(found[0]) > HIGHEST:
        raise DataError(f"The judge gives no mark from 0 to {HIGHEST}: {said[:80]!r}.")
    return float(found[0]) / HIGHEST
