"""What a run is: the options of a sweep, with their checks. No JAX here, so that `--help` stays quick."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

DEFAULT_STRENGTHS: str = "0 log:1e-3:1e-1:3"
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


class Domain(NamedTuple):
    """The values that a hyperparameter may take."""

    contains: Callable[[float], bool]
    words: str


# Far beyond what trains, but within what float32 can square without overflow, which would hide divergence.
DOMAINS = {
    "l2": Domain(lambda value: 0 <= value <= 1e12, "numbers from 0 to 1e12"),
    "learning_rate": Domain(lambda value: 1e-30 <= value <= 1e30, "numbers from 1e-30 to 1e30"),
    "weight_decay": Domain(lambda value: 0 <= value <= 1e12, "numbers from 0 to 1e12"),
    "label_smoothing": Domain(lambda value: 0 <= value < 1, "numbers >= 0 and < 1"),
}
"""Of each hyperparameter that a sweep takes several values of: one field of `SweepConfig` and of `train.Trial` each."""


def parse_values(option: str, words: float | str | Iterable[str | float]) -> tuple[float, ...]:
    """Reads the values of a hyperparameter.

    Args:
      option: its name, one of `DOMAINS`.
      words: numbers (0.001, "1e-3") and logarithmic grids ("log:LOW:HIGH:COUNT", both ends included), mixed
        freely; one string may hold several, separated by spaces.

    Raises:
      InvalidInput: for a word that is no value of it, a value that comes twice, or no word at all.
    """
    domain = DOMAINS[option]
    accepted = f"{domain.words}, each once, or log:LOW:HIGH:COUNT with 0 < LOW < HIGH, COUNT >= 2"
    values: dict[float, None] = {}  # a set that keeps its order
    if isinstance(words, str):
        words = words.split()
    elif not isinstance(words, Iterable):
        words = [words]
    for word in words:
        try:
            grid = _log_grid(word) if isinstance(word, str) and word.startswith("log:") else [float(word)]
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput(option, word, accepted) from None
        for value in grid:
            if not domain.contains(value) or value in values:
                raise InvalidInput(option, word, accepted)
            values[abs(value)] = None  # abs: -0.0 is 0
    if not values:
        raise InvalidInput(option, "", accepted)
    return tuple(values)


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
    """One sweep: every combination of hyperparameters trained from every seed on every fold, all at once.

    Numbers of any library are taken and kept as Python's own, those of hyperparameters as `parse_values` reads them.

    Raises:
      InvalidInput: for an option that cannot be used, whatever the data set.
    """

    l2: tuple[float, ...] = parse_values("l2", DEFAULT_STRENGTHS)
    """L2 strengths: numbers, log:LOW:HIGH:COUNT grids."""
    seeds: int = 5
    """Trials at each setting."""
    epochs: int = 20
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples a step."""
    learning_rate: tuple[float, ...] = (1e-3,)
    """Adam's learning rates, as --l2."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Weight decays, decoupled as AdamW's, as --l2."""
    label_smoothing: tuple[float, ...] = (0.0,)
    """Label smoothings, as --l2."""
    train_size: int | None = 400
    """Training examples of a trial; with folds, those dealt."""
    val_size: int | str | None = 400
    """Examples held out; "test": the test part instead."""
    folds: int = 1
    """Folds of cross-validation; 1: none, but --val-size."""
    label_noise: float = 0.0
    """Fraction of training labels made wrong."""
    dataset: str = "mnist_small"
    """Data set of tensorflow-datasets, or .npz files."""
    data_dir: str | None = None
    """Folder of the data sets of tensorflow-datasets."""
    bfloat16: bool = False
    """Multiply matrices in bfloat16; sum in float32."""
    devices: int | None = None
    """Devices to use; of a CPU, cores, thus threads."""
    trials_at_once: int | None = None
    """Trials to hold in memory; "all": that fit."""
    autotune: bool = False
    """Time the ways to compute; keep the fastest."""

    def check_extends(self, before: SweepConfig) -> None:
        """Raises InvalidInput where this is more than `before` with further epochs, seeds or hyperparameters.

        How it is computed may differ, and where the data are.
        """
        for option in self.__dataclass_fields__.keys() & before.__dataclass_fields__.keys():
            then, now = getattr(before, option), getattr(self, option)
            if option in DOMAINS:
                accepted, ok = (
                    f"{' '.join(f'{value:g}' for value in then)} of the run to resume, and more",
                    {*then} <= {*now},
                )
                now = " ".join(f"{value:g}" for value in now)
            elif option in ("epochs", "seeds"):
                accepted, ok = f"{then} of the run to resume, or more", then <= now
            else:
                accepted, ok = f"{then}, as in the run to resume", then == now or option in HOW
            if not ok:
                raise InvalidInput(option, now, accepted)

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {name: parse_values(name, getattr(self, name)) for name in DOMAINS} | {
            "seeds": _count("seeds", self.seeds, most=MAX_TRIALS),
            "epochs": _count("epochs", self.epochs, most=MAX_EPOCHS),
            "batch_size": _count("batch_size", self.batch_size),
            "train_size": _optional_count("train_size", self.train_size),
            "folds": _count("folds", self.folds, most=MAX_TRIALS),
            "label_noise": _fraction("label_noise", self.label_noise),
            "devices": _optional_count("devices", self.devices),
            "trials_at_once": _optional_count("trials_at_once", self.trials_at_once),
        }
        if checked["folds"] > 1:
            checked["val_size"] = None
        elif self.val_size != "test":
            checked["val_size"] = _count("val_size", self.val_size, alternative=' or "test"')
        for option, value in checked.items():
            object.__setattr__(self, option, value)  # the class is frozen: plain assignment would raise
        if not isinstance(self.dataset, str):
            raise InvalidInput("dataset", self.dataset, "the name of a data set")
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", _path("data_dir", self.data_dir))
        if self.num_trials > MAX_TRIALS:
            raise InvalidInput("seeds", self.seeds, f"at most {MAX_TRIALS} trials (settings times seeds times folds)")
        if self.train_size is not None and self.batch_size > self.train_size:
            raise InvalidInput("batch_size", self.batch_size, f"at most train_size, {self.train_size}")

    @property
    def num_settings(self) -> int:
        """Combinations of hyperparameters."""
        return math.prod(len(getattr(self, name)) for name in DOMAINS)

    @property
    def num_trials(self) -> int:
        """Settings times seeds times folds."""
        return self.num_settings * self.seeds * self.folds


def _count(option: str, value: object, most: int | None = None, alternative: str = "") -> int:
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1 or (most and count > most):
        accepted = "a whole number >= 1" + (f" and <= {most}" if most else "") + alternative
        raise InvalidInput(option, value, accepted)
    return count


def _optional_count(option: str, value: object) -> int | None:
    return None if value is None else _count(option, value)


def _fraction(option: str, value: object) -> float:
    try:
        fraction = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        fraction = math.nan
    if not 0 <= fraction <= 1:
        raise InvalidInput(option, value, "a fraction, 0 to 1")
    return fraction


def _path(option: str, value: object) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InvalidInput(option, value, "a folder")
    return os.fspath(value)


HOW = ("data_dir", "devices", "trials_at_once", "autotune")
"""Options that change the results by rounding at most."""

RECIPES = {
    "quick": SweepConfig(),
    # Keras' regularizers.l2(c) is l2 = 2c: these are c = 0, 1e-4, 1e-3, 1e-2 and 1e-1.
    "article": SweepConfig(
        l2=(0.0, 2e-4, 2e-3, 2e-2, 2e-1), seeds=1, epochs=20, train_size=None, val_size="test", dataset="mnist"
    ),
}
"""Sweeps by name: the default one; and MNIST in full as many tutorials do it, validated on the test part."""
