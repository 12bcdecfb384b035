"""LangChain's ChatOpenAI, by chat completions and by responses."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import APIError, BadRequestError
from rows import FOX, SEVEN, STORY, facts, is_png, is_wav, raises, report

FACTS = facts()


def chat(base: str = "base", **fields: Any) -> ChatOpenAI:
    asked = {"seed": 0, "max_tokens": 150, "max_retries": 0} | fields
    return ChatOpenAI(model="tiny", base_url=FACTS[base], api_key="none", **asked)


def respond(**fields: Any) -> ChatOpenAI:
    return chat(use_responses_api=True, seed=None, extra_body={"seed": 0}, **fields)


def about(part: dict[str, Any], words: str) -> str:
    return chat().invoke([HumanMessage([part, {"type": "text", "text": words}])]).text


def linked(kind: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": FACTS[kind]}}


def joined(model: ChatOpenAI) -> str:
    return "".join(chunk.text for chunk in model.stream(STORY))


def pictures(reply: Any) -> list[Any]:
    return [*reply.additional_kwargs.get("images", ()), *(b for b in reply.content_blocks if b["type"] == "image")]


def drawn() -> str:
    model = respond().bind_tools([{"type": "image_generation"}], tool_choice="image_generation")
    (block,) = [block for block in model.invoke(FOX).content_blocks if block["type"] == "image"]
    return block["base64"]


DRAW = {"modalities": ["image"]}
SPEAK = {"modalities": ["audio"], "audio": {"voice": "theo", "format": "wav"}}
STREAMED = {"modalities": ["audio"], "audio": {"voice": "theo", "format": "pcm16"}}


def speaking(**fields: Any) -> ChatOpenAI:
    return chat(model_kwargs=fields)


report(
    "langchain-openai",
    {
        "text": lambda: chat().invoke(STORY).text == FACTS["told"],
        "stream": lambda: joined(chat()) == FACTS["told"],
        "image in": lambda: about(linked("image"), "What is this?") == FACTS["seen"],
        "audio in": lambda: (
            about({"type": "input_audio", "input_audio": {"data": FACTS["sound"], "format": "wav"}}, "What is said?")
            == FACTS["heard"]
        ),
        "video in": lambda: about(linked("video"), "How does it move?") == FACTS["watched"],
        "image out": lambda: bool(pictures(chat(model_kwargs=DRAW).invoke(FOX))),
        "image out, streamed": lambda: any(pictures(chunk) for chunk in chat(model_kwargs=DRAW).stream(FOX)),
        "audio out": lambda: is_wav(speaking(**SPEAK).invoke(SEVEN).additional_kwargs["audio"]["data"]),
        "audio out, streamed": lambda: any(
            "audio" in chunk.additional_kwargs for chunk in speaking(**STREAMED).stream(SEVEN)
        ),
        "responses": lambda: respond().invoke(STORY).text == FACTS["told"],
        "responses, streamed": lambda: joined(respond()) == FACTS["told"],
        "responses, image out": lambda: is_png(drawn()),
        "errors": lambda: raises(BadRequestError, "temperature", lambda: chat(temperature=9).invoke(STORY)),
        "error in a stream": lambda: raises(APIError, "engine failed", lambda: joined(chat("broken"))),
        "retry after 429": lambda: chat("busy", max_retries=2).invoke(STORY).text == FACTS["told"],
    },
)
