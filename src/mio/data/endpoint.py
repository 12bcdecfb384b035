"""Helpers that stand elsewhere: any server that speaks OpenAI's chat completions captions, listens and refines."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import Request, urlopen

from mio.data.narrate import Noted
from mio.media import encode_audio, encode_image
from mio.types import Audio, Image, MioError, MissingError

SEE = "Describe this picture in one sentence."
HEAR = "Write down what is said. Answer with the words alone, or with nothing where nobody speaks."
TELL = (
    "A scene of a video was captioned and its speech written down, both by machines and with mistakes. Write one short "
    "paragraph that says what is seen and what is said. Add nothing that is not there.\nCaption: {}\nSpeech: {}"
)
_LATER = (408, 429, 500, 502, 503, 504)  # answers that may differ next time


@dataclass(frozen=True)
class Endpoint:
    """`url` ends before /chat/completions. `tokens`: most of an answer. `pause`: seconds before the second of `tries`,
    twice as many before each one after it."""

    url: str
    model: str
    key: str = ""
    tokens: int = 400
    seconds: float = 120.0
    tries: int = 4
    pause: float = 1.0

    @staticmethod
    def named(name: str, key: str = "") -> Endpoint:
        """From "http://host/v1#model".

        Raises:
            MioError: it is no such address.
        """
        url, model = urldefrag(name)
        if urlsplit(url).scheme not in ("http", "https") or not model:
            raise MioError(f"{name!r} names no endpoint.", fix="Write http://HOST/v1#MODEL.")
        return Endpoint(url.rstrip("/"), model, key)

    def ask(self, *parts: str | Image | Audio) -> str:
        """The answer in words to one user turn.

        Raises:
            MissingError: no answer came in time, however often it was asked. MioError: it refuses.
        """
        content = [_part(part) for part in parts]
        messages = [{"role": "user", "content": content}]
        body = {"model": self.model, "temperature": 0, "max_tokens": self.tokens, "messages": messages}
        reason = ""
        for turn in range(self.tries):
            time.sleep(self.pause * 2 ** (turn - 1) if turn else 0)
            try:
                return _words(self._post(json.dumps(body).encode()))
            except HTTPError as error:
                reason = f"{error.code} {error.reason}: {error.read(300).decode(errors='replace')}"
                if error.code not in _LATER:
                    raise MioError(f"The endpoint refuses: {reason}", at=self.url, fix="See its manual.") from error
            except (URLError, OSError, http.client.HTTPException) as error:
                reason = str(error)
        raise MissingError(f"No answer in {self.tries} tries: {reason}", at=self.url, fix="Is the server running?")

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        with urlopen(Request(f"{self.url}/chat/completions", body, headers), timeout=self.seconds) as answer:
            return json.load(answer)

    def caption(self, pictures: Sequence[Image]) -> list[str]:
        return [self.ask(picture, SEE) for picture in pictures]

    def hear(self, sounds: Sequence[Audio]) -> list[str]:
        return [self.ask(sound, HEAR) for sound in sounds]

    def refine(self, notes: Sequence[Noted]) -> list[str]:
        return [self.ask(TELL.format(note.seen, note.said or "none")) for note in notes]


def _words(answer: Any) -> str:
    """Raises: MioError where the answer is no chat completion."""
    try:
        return str(answer["choices"][0]["message"]["content"] or "").strip()
    except (KeyError, IndexError, TypeError) as error:
        raise MioError("The endpoint's answer is no chat completion.", fix="Give the address of one.") from error


def _part(part: str | Image | Audio) -> dict[str, Any]:
    """In OpenAI's words."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Image):
        url = f"data:image/png;base64,{base64.b64encode(encode_image(part)).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}
    data = base64.b64encode(encode_audio(part)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
