"""Settings: fields of frozen dataclasses with a help text, a check of the value, and a flat name."""

import math
import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from pygan._nearest import nearest

__all__ = [
    "AT_LEAST_ONE",
    "AT_LEAST_TWO",
    "BELOW_ONE",
    "KEPT",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SIZES",
    "Settings",
    "check_seed",
    "find",
    "random_generator",
    "setting",
    "value_of_type",
    "whole_number",
]

_LARGEST_SEED = 2**63 - 1

Rule = tuple[str, Callable[[Any], bool]]

ANYTHING: Rule = ("anything", lambda value: True)
AT_LEAST_ONE: Rule = ("at least 1", lambda value: value >= 1)
"""A rule for `setting`: at least 1."""
AT_LEAST_TWO: Rule = ("at least 2, since batch norm compares the examples of a batch", lambda value: value >= 2)
"""A rule for `setting`: at least 2, as the size of a batch that goes through batch norm."""
NOT_NEGATIVE: Rule = ("at least 0", lambda value: value >= 0)
"""A rule for `setting`: at least 0."""
POSITIVE: Rule = ("greater than 0", lambda value: value > 0)
"""A rule for `setting`: greater than 0."""
BELOW_ONE: Rule = ("in [0, 1)", lambda value: 0 <= value < 1)
"""A rule for `setting`: at least 0 and less than 1, such as a probability of dropout."""
KEPT: Rule = ("in (0, 1]", lambda value: 0 < value <= 1)
"""A rule for `setting`: greater than 0 and at most 1, such as the share that dropout keeps."""
SIZES: Rule = ("at least one size, each at least 1", lambda value: len(value) > 0 and min(value) >= 1)
"""A rule for `setting`: a tuple of at least one size, each at least 1."""


def setting(
    default: Any,
    help: str,
    rule: Rule = ANYTHING,
    *,
    choices: Collection[str] | None = None,
    player: Literal["generator", "discriminator"] | None = None,
) -> Any:
    """Return a field of a `Settings` class.

    Args:
        default: its default value.
        help: one line for the command line's help.
        rule: what its values must be, as text and as a function.
        choices: its possible values, if they are names; a registry is read at each check, so it may grow later.
        player: the player that it describes, if it is a setting of only one of the model's two players.
    """
    return field(default=default, metadata={"help": help, "rule": rule, "choices": choices, "player": player})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base class: when an object is made, every value is checked and converted to the type of its field.

    Raises TypeError or ValueError for an impossible value; the message names the setting and what was expected.
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
        """Return the settings by name."""
        return {known.name: getattr(self, known.name) for known in fields(self)}


def find(what: str, name: Any, registry: Mapping[str, Any] | Collection[str]) -> Any:
    """Return the entry of a registry. If there is none, raise ValueError with the most similar name."""
    if not isinstance(name, str) or name not in registry:
        close = nearest(name, registry) if isinstance(name, str) else ""
        raise ValueError(f"{what} must be one of {', '.join(map(repr, registry))}, got {name!r}{close}")
    return registry[name] if isinstance(registry, Mapping) else name


def value_of_type(name: str, value: Any, hint: Any) -> Any:
    """Return `value` in the type of its setting. Numbers of numpy, and a list or an int for a tuple, are accepted.

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


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an argument as an int in least..most; None is no upper bound.

    Raises TypeError for what is no whole number, such as 1.5, True or a list, ValueError for one out of range.
    """
    number: int = value_of_type(name, value, int)
    if most is not None and not least <= number <= most:
        raise ValueError(f"{name} must be in {least}..{most}, got {number}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_seed(name: str, seed: Any) -> int:
    """Return a seed as an int; TypeError or ValueError, with the name, unless it is in 0..2**63 - 1."""
    number = whole_number(name, seed, 0)
    if number > _LARGEST_SEED:
        raise ValueError(f"{name} must be at most 2**63 - 1, got {number}")
    return number


def random_generator(name: str, seed: Any) -> torch.Generator | None:
    """Return a generator of random numbers with this seed, which `check_seed` checks; None for None."""
    return None if seed is None else torch.Generator().manual_seed(check_seed(name, seed))


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
