"""Dataclass trees <-> plain dictionaries, YAML and `a.b=c` overrides. Unknown keys are errors with a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from mio.types import MioError

T = TypeVar("T")


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


def to_dict(config: Any) -> Any:
    """A dataclass tree as dictionaries, lists and scalars, ready for JSON and YAML."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, tuple | list):
        return [to_dict(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(kind: type[T], data: Any, at: str = "") -> T:
    """The inverse of `to_dict`.

    Raises:
        MioError: a key that the dataclass does not have, a missing one, or a value of the wrong type; names its path.
    """
    if not isinstance(data, Mapping):
        raise MioError(f"{at or kind.__name__} must be a mapping, got {data!r}.", at=at)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    for key in data:
        if key not in fields:
            raise MioError(f"Unknown key {_path(at, key)!r}.", at=at, fix=suggest(str(key), fields))
    try:
        return kind(**{k: _value(hints[k], v, _path(at, k)) for k, v in data.items()})
    except TypeError as error:
        missing = [n for n, f in fields.items() if n not in data and _required(f)]
        raise MioError(f"{at or kind.__name__} lacks {', '.join(missing)}.", at=at) from error


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _path(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _value(hint: Any, value: Any, at: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type[Any], hint), value, at)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(next(a for a in args if a is not type(None)), value, at)
    if origin is Literal:
        return _literal(args, value, at)
    if origin is tuple:
        return _tuple(args, value, at)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise MioError(f"{at} must be a mapping, got {value!r}.", at=at)
        return {k: _value(args[1], v, _path(at, k)) for k, v in value.items()}
    return _scalar(hint, value, at)


def _literal(args: tuple[Any, ...], value: Any, at: str) -> Any:
    if value not in args:
        raise MioError(f"{at} cannot be {value!r}.", at=at, fix=suggest(str(value), map(str, args)))
    return value


def _tuple(args: tuple[Any, ...], value: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise MioError(f"{at} must be a list, got {value!r}.", at=at)
    kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
    if len(kinds) != len(value):
        raise MioError(f"{at} must be {len(kinds)} values, got {value!r}.", at=at)
    return tuple(_value(k, v, f"{at}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _scalar(hint: Any, value: Any, at: str) -> Any:
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError:
            pass
    if hint is Any or type(value) is hint:
        return value
    raise MioError(f"{at} must be {getattr(hint, '__name__', hint)}, got {value!r}.", at=at)


def override(config: T, assignments: Iterable[str]) -> T:
    """Apply `a.b=c` assignments (values in YAML; list items by number) and return a new tree."""
    data = to_dict(config)
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign:
            raise MioError(f"{assignment!r} is not an assignment.", fix="Write it as path.to.field=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MioError(f"{text!r} is no value.", at=path, fix="Write the value as YAML.") from error
        _assign(data, path.split("."), value, path)
    return from_dict(type(config), data)


def _assign(data: Any, keys: list[str], value: Any, path: str) -> None:
    *parents, last = keys
    for key in parents:
        data = data[_index(data, key, path)]
    data[_index(data, last, path)] = value


def _index(data: Any, key: str, path: str) -> Any:
    if isinstance(data, list):
        if not key.isdigit() or int(key) >= len(data):
            raise MioError(f"No item {key!r} in {path!r}.", at=path, fix=f"Numbers 0 to {len(data) - 1} exist.")
        return int(key)
    if not isinstance(data, dict) or key not in data:
        raise MioError(f"Unknown key {path!r}.", at=path, fix=suggest(key, data if isinstance(data, dict) else ()))
    return key


def dump_yaml(config: Any) -> str:
    return str(yaml.safe_dump(to_dict(config), sort_keys=False, width=120))


def load_yaml(kind: type[T], path: Path) -> T:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MioError(f"Cannot read {path.name}: {type(error).__name__}.", at=str(path)) from error
    return from_dict(kind, data)
