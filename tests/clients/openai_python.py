"""OpenAI's own client for Python, 2.x and 3.x."""

from __future__ import annotations

import base64
import io
from typing import Any

from openai import APIError, BadRequestError, OpenAI
from rows import FOX, SEVEN, STORY, facts, is_png, is_wav, raises, report

FACTS = facts()
WAV = base64.b64decode(FACTS["sound"])
CLIENT = OpenAI(base_url=FACTS["base"], api_key="none", max_retries=0)
CLIP_OUT = {"modalities": ["video"]}
SOUND_OUT = {"modalities": ["audio"], "audio": {"voice": "theo", "format": "pcm16"}}


def ask(content: Any, client: OpenAI = CLIENT, **fields: Any) -> Any:
    asked = {"model": "tiny", "seed": 0, "max_tokens": 150} | fields
    return client.chat.completions.create(messages=[{"role": "user", "content": content}], **asked)


def said(content: Any, **fields: Any) -> Any:
    return ask(content, **fields).choices[0].message


def added(content: Any, **fields: Any) -> Any:
    """The message that the client's own helper adds up from a stream."""
    asked = {"model": "tiny", "seed": 0, "max_tokens": 150} | fields
    with CLIENT.chat.completions.stream(messages=[{"role": "user", "content": content}], **asked) as stream:
        for _ in stream:
            pass
        return stream.current_completion_snapshot.choices[0].message


def about(part: dict[str, Any], words: str) -> str:
    return said([part, {"type": "text", "text": words}]).content


def linked(kind: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": FACTS[kind]}}


def responded(words: str, **fields: Any) -> Any:
    return CLIENT.responses.create(model="tiny", input=words, extra_body={"seed": 0}, max_output_tokens=150, **fields)


def response_stream() -> str:
    events = responded(STORY, stream=True)
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def drawn() -> str:
    tools: Any = [{"type": "image_generation"}]
    (item,) = responded(FOX, tools=tools, tool_choice="required").output
    return item.result


def named(data: bytes) -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = "seven.wav"
    return file


def spoken() -> bytes:
    made = CLIENT.audio.speech.create(model="tiny", voice="theo", input="seven", response_format="wav")
    return made.read()


def audio_of(message: Any) -> bytes:
    data = message.audio if isinstance(message.audio, dict) else message.audio.to_dict()  # 2.x adds up plain fields
    return base64.b64decode(data["data"])


def broken() -> None:
    for _ in ask(STORY, OpenAI(base_url=FACTS["broken"], api_key="none", max_retries=0), stream=True):
        pass


def retried() -> str:
    return ask(STORY, OpenAI(base_url=FACTS["busy"], api_key="none")).choices[0].message.content


report(
    "openai",
    {
        "text": lambda: said(STORY).content == FACTS["told"],
        "stream": lambda: added(STORY).content == FACTS["told"],
        "image in": lambda: about(linked("image"), "What is this?") == FACTS["seen"],
        "audio in": lambda: (
            about({"type": "input_audio", "input_audio": {"data": FACTS["sound"], "format": "wav"}}, "What is said?")
            == FACTS["heard"]
        ),
        "video in": lambda: about(linked("video"), "How does it move?") == FACTS["watched"],
        "image out": lambda: is_png(said(FOX, modalities=["image"]).images[0]["image_url"]["url"]),
        "image out, streamed": lambda: is_png(added(FOX, modalities=["image"]).images[0]["image_url"]["url"]),
        "audio out": lambda: is_wav(
            said(SEVEN, **SOUND_OUT | {"audio": {"voice": "theo", "format": "wav"}}).audio.data
        ),
        "audio out, streamed": lambda: audio_of(added(SEVEN, **SOUND_OUT)) == audio_of(said(SEVEN, **SOUND_OUT)) != b"",
        "video out": lambda: said("Film a red ball moving left.", **CLIP_OUT).videos[0]["video_url"]["url"] != "",
        "order of parts": lambda: said(FOX, modalities=["image"]).parts == [{"type": "image", "index": 0}],
        "responses": lambda: responded(STORY).output_text == FACTS["told"],
        "responses, streamed": lambda: response_stream() == FACTS["told"],
        "responses, image out": lambda: is_png(drawn()),
        "images endpoint": lambda: is_png(CLIENT.images.generate(model="tiny", prompt="a fox").data[0].b64_json),
        "speech endpoint": lambda: is_wav(spoken()),
        "transcription endpoint": lambda: (
            CLIENT.audio.transcriptions.create(model="tiny", file=named(WAV)).text == FACTS["heard"].strip()
        ),
        "errors": lambda: raises(BadRequestError, "temperature", lambda: ask(STORY, temperature=9)),
        "error in a stream": lambda: raises(APIError, "engine failed", broken),
        "retry after 429": lambda: retried() == FACTS["told"],
    },
)
