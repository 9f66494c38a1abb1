"""A hyperparameter: its name, the values that it may take, and the ways to write them."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterable
from typing import Any

from l2jax.errors import InvalidInputError

Values = float | str | Iterable[float | str]
"""Values as a person writes them: numbers and grids "log:LOW:HIGH:COUNT", one, several, or several in a string."""

MAX_VALUES = 1_000_000
MOST_LISTED = 20
FLOAT32_TINY = 2.0**-126
"""The smallest normal number of float32."""


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """A number that differs between trials.

    Attributes:
      name: in sentences and on axes.
      low: the smallest value that is accepted.
      high: the largest one, or with `below_high` the smallest that no longer is.
    """

    name: str
    low: float
    high: float
    below_high: bool = False

    def accepts(self, value: float) -> bool:
        return self.low <= value < self.high if self.below_high else self.low <= value <= self.high

    def __str__(self) -> str:
        """The values that it accepts, in words."""
        low, high = (f"{limit:g}".replace("e+", "e") for limit in (self.low, self.high))
        return f"numbers >= {low} and < {high}" if self.below_high else f"numbers from {low} to {high}"


def own_hyperparameter(name: str) -> Hyperparameter:
    """A hyperparameter of a person's own: any number that float32 holds."""
    return Hyperparameter(name.replace("_", " "), -1e38, 1e38)


def parse_values(option: str, hyperparameter: Hyperparameter, values: Values) -> tuple[float, ...]:
    """Reads the values of a hyperparameter.

    Args:
      option: its name in the API, for errors.
      values: numbers (0.001, "1e-3") and logarithmic grids ("log:LOW:HIGH:COUNT", both ends included), mixed freely;
        one string may hold several, separated by spaces.

    Returns:
      The values in the order in which they were given.

    Raises:
      InputError: for a value that is not accepted, a value that comes twice, or no value at all.
    """
    accepted = f"{hyperparameter}, each once, or log:LOW:HIGH:COUNT with 0 < LOW < HIGH, COUNT >= 2"
    numbers: dict[float, float] = {}  # by what float32 makes of them
    for word in _words(values):
        try:
            grid = _log_grid(word) if isinstance(word, str) and word.startswith("log:") else [float(word)]
        except (TypeError, ValueError, OverflowError):
            raise InvalidInputError(option, word, accepted) from None
        for number in grid:
            single = _float32(number)
            if not hyperparameter.accepts(number) or numbers.get(single) == number:
                raise InvalidInputError(option, word, accepted)
            if single in numbers:
                raise InvalidInputError(option, number, f"values that differ in float32, as {numbers[single]} does not")
            if single == 0 != number:
                raise InvalidInputError(
                    option, number, f"0, or {FLOAT32_TINY:.3g} and more, as float32 has none between"
                )
            numbers[single] = number + 0.0  # -0.0 becomes 0
    if not numbers:
        raise InvalidInputError(option, "", accepted)
    return tuple(numbers.values())


def listed(values: Iterable[float], between: str = " ", spec: str = "g") -> str:
    """Values in a sentence: all of them, or of very many the first, the last and how many there are."""
    texts = [f"{value:{spec}}" for value in values]
    if len(texts) > MOST_LISTED:
        texts = [*texts[:3], "...", f"{texts[-1]} ({len(texts):,} values)"]
    return between.join(texts)


def _words(values: Any) -> Iterable[float | str]:
    """The values one by one; a scalar of any library is one, even if it is an array without axes."""
    if isinstance(values, str):
        return values.split()
    try:
        return iter(values)
    except TypeError:
        return [values]


def _float32(number: float) -> float:
    """The number that the devices compute with: float32, whose smallest numbers are 0 on many of them."""
    try:
        (single,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return math.inf
    return single if abs(single) >= FLOAT32_TINY else 0.0


def _log_grid(word: str) -> list[float]:
    low, high, count = word.removeprefix("log:").split(":")
    low, high, count = float(low), float(high), int(count)
    if not (0 < low < high < math.inf and 2 <= count <= MAX_VALUES):
        raise ValueError
    fractions = [i / (count - 1) for i in range(count)]
    # Rounded to 12 digits so that 1e-5 ... 1e-1 reads as such in tables and file names.
    return [float(f"{low ** (1 - fraction) * high**fraction:.12g}") for fraction in fractions]
