"""Strict, frozen values, and the faults of a table that should be one, in words that name the key."""

import json
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from repro.problem import suggest

Value = TypeVar("Value", bound=BaseModel)


class Frozen(BaseModel):
    """A strict value: no unknown keys, no silent conversions, no NaN or infinity, no changes once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    def __copy__(self) -> Self:
        """Return a copy without cached properties, since ``model_copy`` may change the fields that they depend on."""
        return _without_kept(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a deep copy, also without cached properties."""
        return _without_kept(super().__deepcopy__(memo))


def _without_kept(value: Value) -> Value:
    for name in value.__dict__.keys() - type(value).model_fields.keys():
        del value.__dict__[name]
    return value


def faults_in(
    error: ValidationError, model: Any, homes: Mapping[str, tuple[str, ...]] = {}, at: tuple[str, ...] = (),
    also: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """Return the faults of a table that is no valid ``model``, each as "key path: what is wrong; what is allowed".

    ``at`` is the key path of the table; ``homes`` maps those of its keys that were written in another table to that
    table's key path. ``also`` names further keys that the table may have.
    """
    found = error.errors()
    faults = []
    for fault in found:
        loc = fault["loc"]
        if not any(other["loc"][: len(loc)] == loc != other["loc"] for other in found):  # a part of it says so
            home = homes.get(str(loc[0]), at) if loc else at
            faults.append(f"{key_path((*home, *loc))}: {_wrong(fault, model, also)}".removeprefix(": "))
    return faults


_WORDS = (
    (r"^Value error, | after validation", ""), (r"a valid tuple", "a list"), (r"^Tuple", "The list"),
    (r"a valid dictionary( or instance of \w+)?", "a table"),
)  # fmt: skip
"""What pydantic says, as regular expressions, and how a reader of TOML would say it."""


def _wrong(fault: Any, model: Any, also: Collection[str]) -> str:
    """Return one fault that pydantic found as "what is wrong; what is allowed", in the words of TOML."""
    loc = fault["loc"]
    if fault["type"] == "extra_forbidden":
        allowed = sorted({*_keys(model, loc[:-1]), *(also if len(loc) == 1 else ())})
        return f"unknown key{suggest(str(loc[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return "missing"
    message: str = fault["msg"]
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    shown = fault.get("input")
    return message + (f", not {reprlib.repr(shown)}" if isinstance(shown, str | int | float | bool) else "")


def _keys(model: Any, loc: Collection[str | int]) -> list[str]:
    """Return the keys of the table that lies at ``loc`` inside a ``model``."""
    for part in loc:
        if isinstance(part, str):
            inner: Any = model.model_fields[part].annotation
            while not hasattr(inner, "model_fields"):  # tuple[Model, ...] or Model | None
                inner = get_args(inner)[0]
            model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def key_path(parts: Collection[str | int]) -> str:
    """Return a key path as TOML writes it, ``expect[0].accept``, with odd keys quoted."""
    keys = [part for part in parts if part != "[key]"]
    text = "".join(
        f"[{key}]" if isinstance(key, int) else "." + (key if re.fullmatch(r"[\w-]+", key) else json.dumps(key))
        for key in keys
    )
    return text.removeprefix(".")
