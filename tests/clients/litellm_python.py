"""LiteLLM, as a library."""

from __future__ import annotations

import base64
import io
from typing import Any

import litellm
from rows import FOX, SEVEN, STORY, facts, is_png, is_wav, raises, report

FACTS = facts()
litellm.suppress_debug_info = True
HERE = {"model": "openai/tiny", "api_base": FACTS["base"], "api_key": "none", "max_retries": 0, "num_retries": 0}
SOUND_OUT = {"modalities": ["audio"], "audio": {"voice": "theo", "format": "pcm16"}}
MEDIA = {"allowed_openai_params": ["modalities", "audio"]}


def ask(content: Any, **fields: Any) -> Any:
    asked = {**HERE, "seed": 0, "max_tokens": 150, **MEDIA, **fields}
    return litellm.completion(messages=[{"role": "user", "content": content}], **asked)


def said(content: Any, **fields: Any) -> Any:
    return ask(content, **fields).choices[0].message


def deltas(content: Any, **fields: Any) -> list[Any]:
    return [chunk.choices[0].delta for chunk in ask(content, stream=True, **fields) if chunk.choices]


def about(part: dict[str, Any], words: str) -> str:
    return said([part, {"type": "text", "text": words}]).content


def linked(kind: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": FACTS[kind]}}


def beyond(message: Any, name: str) -> Any:
    """A field that OpenAI's messages do not have, where LiteLLM keeps such."""
    return (message.provider_specific_fields or {}).get(name)


def streamed_picture() -> str:
    (picture,) = [d.images[0] for d in deltas(FOX, modalities=["image"]) if getattr(d, "images", None)]
    return picture["image_url"]["url"]


def streamed_sound() -> str:
    pieces = [d.audio for d in deltas(SEVEN, **SOUND_OUT) if getattr(d, "audio", None)]
    return "".join(piece["data"] for piece in pieces)


def responded(words: str, **fields: Any) -> Any:
    extra = {"extra_body": {"seed": 0}}
    return litellm.responses(**HERE, input=words, max_output_tokens=150, **extra, **fields)


def response_stream() -> str:
    events = responded(STORY, stream=True)
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def drawn() -> str:
    (item,) = responded(FOX, tools=[{"type": "image_generation"}], tool_choice="required").output
    return item["result"] if isinstance(item, dict) else item.result


def heard() -> str:
    file = io.BytesIO(base64.b64decode(FACTS["sound"]))
    file.name = "seven.wav"
    return litellm.transcription(**HERE, file=file).text


def broken() -> None:
    for _ in ask(STORY, stream=True, api_base=FACTS["broken"]):
        pass


report(
    "litellm",
    {
        "text": lambda: said(STORY).content == FACTS["told"],
        "stream": lambda: "".join(d.content or "" for d in deltas(STORY)) == FACTS["told"],
        "image in": lambda: about(linked("image"), "What is this?") == FACTS["seen"],
        "audio in": lambda: (
            about({"type": "input_audio", "input_audio": {"data": FACTS["sound"], "format": "wav"}}, "What is said?")
            == FACTS["heard"]
        ),
        "video in": lambda: about(linked("video"), "How does it move?") == FACTS["watched"],
        "image out": lambda: is_png(said(FOX, modalities=["image"]).images[0]["image_url"]["url"]),
        "image out, streamed": lambda: is_png(streamed_picture()),
        "audio out": lambda: is_wav(
            said(SEVEN, **SOUND_OUT | {"audio": {"voice": "theo", "format": "wav"}}).audio.data
        ),
        "audio out, streamed": lambda: streamed_sound() == said(SEVEN, **SOUND_OUT).audio.data,
        "video out": lambda: bool(beyond(said("Film a red ball moving left.", modalities=["video"]), "videos")),
        "order of parts": lambda: bool(beyond(said(FOX, modalities=["image"]), "parts")),
        "responses": lambda: responded(STORY).output_text == FACTS["told"],
        "responses, streamed": lambda: response_stream() == FACTS["told"],
        "responses, image out": lambda: is_png(drawn()),
        "images endpoint": lambda: is_png(litellm.image_generation(**HERE, prompt="a fox").data[0].b64_json),
        "speech endpoint": lambda: is_wav(
            litellm.speech(**HERE, voice="theo", input="seven", response_format="wav").content
        ),
        "transcription endpoint": lambda: heard() == FACTS["heard"].strip(),
        "errors": lambda: raises(litellm.BadRequestError, "temperature", lambda: ask(STORY, temperature=9)),
        "error in a stream": lambda: raises(Exception, "engine failed", broken),
        "retry after 429": lambda: (
            said(STORY, api_base=FACTS["busy"], num_retries=2, max_retries=2).content == FACTS["told"]
        ),
    },
)
