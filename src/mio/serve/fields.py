"""Reading a JSON object that a stranger wrote: every field has a type and bounds, and every fault names its place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn

from mio.serve.errors import ApiError, unsupported

TEXT = 2**20  # characters of one text
_LONE = re.compile("[\ud800-\udfff]")


def parse_object(data: bytes) -> Fields:
    """Raises: ApiError on anything but one JSON object of finite numbers."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(word)

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError("The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError("The body is JSON, but not an object.", code="invalid_json")
    return Fields(value)


class Fields:
    """An object and its `path` within the request. A field that is null counts as absent."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values, self.path = values, path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fault(self, name: str, want: str, code: str = "invalid_type") -> ApiError:
        return ApiError(f"{self.at(name)!r} must be {want}.", param=self.at(name), code=code)

    def raw(self, name: str) -> Any:
        return self.values.get(name)

    def has(self, name: str) -> bool:
        return self.raw(name) is not None

    def text(self, name: str, default: str | None = None, most: int = TEXT) -> str:
        """A string; without `default` it must be there."""
        value = default if self.raw(name) is None else self.raw(name)
        if not isinstance(value, str):
            raise self.fault(name, "a string")
        if len(value) > most:
            raise self.fault(name, f"a string of at most {most:,} characters", "string_above_max_length")
        if _LONE.search(value):
            raise self.fault(name, "text without lone surrogates", "invalid_value")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(name, "a number")
        if not (low <= value <= high) or not math.isfinite(value):
            raise self.fault(name, f"from {low:g} to {high:g}", "invalid_value")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(name, "an integer")
        if not low <= value <= high:
            raise self.fault(name, f"from {low} to {high}", "invalid_value")
        return value

    def flag(self, name: str) -> bool:
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise self.fault(name, "true or false")
        return bool(value)

    def choice(self, name: str, default: str, possible: Collection[str]) -> str:
        value = self.text(name, default, 64)
        if value not in possible:
            raise self.fault(name, f"one of {', '.join(possible)}", "invalid_value")
        return value

    def object(self, name: str) -> Fields:
        """An object; empty where it is absent."""
        value = {} if self.raw(name) is None else self.raw(name)
        if not isinstance(value, dict):
            raise self.fault(name, "an object")
        return Fields(value, self.at(name))

    def items(self, name: str, most: int) -> list[Any]:
        value = [] if self.raw(name) is None else self.raw(name)
        if not isinstance(value, list):
            raise self.fault(name, "a list")
        if len(value) > most:
            raise self.fault(name, f"a list of at most {most:,}", "array_above_max_length")
        return value

    def objects(self, name: str, most: int) -> list[Fields]:
        out = []
        for number, value in enumerate(self.items(name, most)):
            place = f"{self.at(name)}[{number}]"
            if not isinstance(value, dict):
                raise ApiError(f"{place!r} must be an object.", param=place, code="invalid_type")
            out.append(Fields(value, place))
        return out

    def texts(self, name: str, most: int, longest: int) -> tuple[str, ...]:
        """A string or a list of strings."""
        if isinstance(self.raw(name), str):
            return (self.text(name, most=longest),)
        items = self.items(name, most)
        return tuple(Fields({str(n): v}, self.at(name)).text(str(n), most=longest) for n, v in enumerate(items))

    def refuse(self, names: Iterable[str]) -> None:
        """Fields that mean something elsewhere and would silently change nothing here."""
        for name in names:
            if self.raw(name) not in (None, False, 0, "", "none", "auto", [], {}):
                raise unsupported(self.at(name))
