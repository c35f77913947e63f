"""Settings: fields of frozen dataclasses that say what they are, check their values, and are known by flat names."""

import math
import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pygan._nearest import nearest

__all__ = [
    "AT_LEAST_ONE",
    "BELOW_ONE",
    "KEPT",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SIZES",
    "Settings",
    "find",
    "setting",
    "value_of_type",
]

Rule = tuple[str, Callable[[Any], bool]]

ANYTHING: Rule = ("anything", lambda value: True)
AT_LEAST_ONE: Rule = ("at least 1", lambda value: value >= 1)
NOT_NEGATIVE: Rule = ("at least 0", lambda value: value >= 0)
POSITIVE: Rule = ("greater than 0", lambda value: value > 0)
BELOW_ONE: Rule = ("in [0, 1)", lambda value: 0 <= value < 1)
KEPT: Rule = ("in (0, 1]", lambda value: 0 < value <= 1)
SIZES: Rule = ("at least one size, each at least 1", lambda value: len(value) > 0 and min(value) >= 1)


def setting(
    default: Any,
    help: str,
    rule: Rule = ANYTHING,
    *,
    choices: Collection[str] | None = None,
    player: Literal["generator", "discriminator"] | None = None,
) -> Any:
    """A field of a `Settings` class.

    Args:
        default: its default value.
        help: one line for the command line's help.
        rule: what its values must be, in words and as a test.
        choices: the names that it may have; a registry is asked at each check, so that it may grow.
        player: the player that it describes, if it describes one of the model's two.
    """
    return field(default=default, metadata={"help": help, "rule": rule, "choices": choices, "player": player})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class: every value is checked, and brought to the type of its field, when an object is made.

    Raises TypeError or ValueError, naming the setting, what was expected and what came, for an impossible value.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for known in fields(self):
            if "rule" not in known.metadata:
                continue
            value = value_of_type(known.name, getattr(self, known.name), hints[known.name])
            choices = known.metadata["choices"]
            if choices is not None:
                find(known.name, value, choices)
            rule, holds = known.metadata["rule"]
            if not holds(value):
                raise ValueError(f"{known.name} must be {rule}, got {value!r}")
            object.__setattr__(self, known.name, value)

    def flat(self) -> dict[str, Any]:
        """The settings by name."""
        return {known.name: getattr(self, known.name) for known in fields(self)}


def find(what: str, name: Any, registry: Mapping[str, Any] | Collection[str]) -> Any:
    """The entry of a registry; ValueError with the nearest right name if there is none."""
    if not isinstance(name, str) or name not in registry:
        close = nearest(name, registry) if isinstance(name, str) else ""
        raise ValueError(f"{what} must be one of {', '.join(map(repr, registry))}, got {name!r}{close}")
    return registry[name] if isinstance(registry, Mapping) else name


def value_of_type(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type of its setting: numbers of numpy are numbers, and a list or one int will do for a tuple.

    Raises TypeError for another type, ValueError for an infinity, a NaN, or none of the choices of a Literal.
    """
    if get_origin(hint) is Literal:
        return find(name, value, get_args(hint))
    if get_origin(hint) is tuple:
        sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
        if all(_is_number(size, numbers.Integral) for size in sizes):
            return tuple(map(int, sizes))
        raise TypeError(f"{name} must be a tuple of ints, got {value!r}")
    if hint is int and _is_number(value, numbers.Integral):
        return int(value)
    if hint is float and _is_number(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {str(value)[:20]}")
        return number
    if type(value) is hint:
        return value
    raise TypeError(f"{name} must be {hint.__name__}, got {value!r}")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
