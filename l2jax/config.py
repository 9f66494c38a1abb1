"""What a run is: the options of a sweep, with their checks. No JAX here, so that `--help` stays quick."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable

DEFAULT_STRENGTHS: str = "0 log:1e-4:1e-1:7"
MAX_TRIALS = MAX_EPOCHS = 1_000_000


class InvalidInput(ValueError):
    """Something a person gave cannot be used: which option, what was given, what is accepted, in one line."""

    def __init__(self, option: str, given: object, accepted: str):
        super().__init__(f"{option}: got {_one_line(given)}; accepted: {accepted}")
        self.option, self.given, self.accepted = option, given, accepted


def _one_line(given: object) -> str:
    text = str(given)
    if not text.isprintable():
        text = repr(text)
    return (text if len(text) <= 60 else f"{text[:57]}...") or "nothing"


def parse_strengths(words: str | Iterable[str | float]) -> tuple[float, ...]:
    """Reads L2 strengths.

    Args:
      words: numbers (0.001, "1e-3") and logarithmic grids ("log:LOW:HIGH:COUNT", both ends included), mixed
        freely; one string may hold several, separated by spaces.

    Raises:
      InvalidInput: for a word that is no strength, a strength that comes twice, or no word at all.
    """
    accepted = "finite numbers >= 0, each once, or log:LOW:HIGH:COUNT with 0 < LOW < HIGH, COUNT >= 2"
    strengths: dict[float, None] = {}  # a set that keeps its order
    try:
        words = words.split() if isinstance(words, str) else list(words)
    except TypeError:
        raise InvalidInput("l2", words, accepted) from None
    for word in words:
        try:
            grid = _log_grid(word) if isinstance(word, str) and word.startswith("log:") else [float(word)]
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput("l2", word, accepted) from None
        for strength in grid:
            if not 0 <= strength < math.inf or strength in strengths:
                raise InvalidInput("l2", word, accepted)
            strengths[abs(strength)] = None  # abs: -0.0 is 0
    if not strengths:
        raise InvalidInput("l2", "", accepted)
    return tuple(strengths)


def _log_grid(word: str) -> list[float]:
    low, high, count = word.removeprefix("log:").split(":")
    low, high, count = float(low), float(high), int(count)
    if not (0 < low < high < math.inf and 2 <= count <= MAX_TRIALS):
        raise ValueError
    parts = [i / (count - 1) for i in range(count)]
    # Rounded to 12 digits so that 1e-5 ... 1e-1 reads as such in tables and file names.
    return [float(f"{low ** (1 - part) * high**part:.12g}") for part in parts]


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """One sweep: every strength in `l2` trained from every seed, all at once.

    Numbers of any library are taken and kept as Python's own, `l2` as `parse_strengths` reads it.

    Raises:
      InvalidInput: for an option that cannot be used, whatever the data set.
    """

    l2: tuple[float, ...] = parse_strengths(DEFAULT_STRENGTHS)
    """L2 strengths: numbers, log:LOW:HIGH:COUNT grids."""
    seeds: int = 3
    """Trials at each strength."""
    epochs: int = 25
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples a step."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    train_size: int | None = 400
    """Training examples of a trial."""
    val_size: int = 400
    """Examples held out of training."""
    dataset: str = "mnist_small"
    """Data set."""
    bfloat16: bool = False
    """Multiply matrices in bfloat16; sum in float32."""
    devices: int | None = None
    """Devices to use; of a CPU, cores."""
    trials_at_once: int | None = None
    """Trials to hold in memory; "all": that fit."""
    autotune: bool = False
    """Time the ways to compute; keep the fastest."""

    def __post_init__(self) -> None:
        checked = {
            "l2": parse_strengths(self.l2),
            "seeds": _count("seeds", self.seeds, MAX_TRIALS),
            "epochs": _count("epochs", self.epochs, MAX_EPOCHS),
            "batch_size": _count("batch_size", self.batch_size),
            "learning_rate": _learning_rate(self.learning_rate),
            "train_size": None if self.train_size is None else _count("train_size", self.train_size),
            "val_size": _count("val_size", self.val_size),
            "devices": None if self.devices is None else _count("devices", self.devices),
            "trials_at_once": None if self.trials_at_once is None else _count("trials_at_once", self.trials_at_once),
        }
        for option, value in checked.items():
            object.__setattr__(self, option, value)  # the class is frozen: plain assignment would raise
        if not isinstance(self.dataset, str):
            raise InvalidInput("dataset", self.dataset, "the name of a data set")
        if self.num_trials > MAX_TRIALS:
            raise InvalidInput("seeds", self.seeds, f"at most {MAX_TRIALS} trials (strengths times seeds)")
        if self.train_size is not None and self.batch_size > self.train_size:
            raise InvalidInput("batch_size", self.batch_size, f"at most train_size, {self.train_size}")

    @property
    def num_trials(self) -> int:
        """Strengths times seeds."""
        return len(self.l2) * self.seeds


def _count(option: str, value: object, most: int | None = None) -> int:
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1 or (most and count > most):
        raise InvalidInput(option, value, "a whole number >= 1" + (f" and <= {most}" if most else ""))
    return count


def _learning_rate(value: object) -> float:
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not 0 < rate < math.inf:
        raise InvalidInput("learning_rate", value, "a finite number > 0")
    return rate
