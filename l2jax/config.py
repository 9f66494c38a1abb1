"""The options of a sweep, their checks, and sweeps by name. No JAX here, so that `--help` stays quick."""

from __future__ import annotations

import contextlib
import dataclasses
import keyword
import math
import operator
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from l2jax.errors import InvalidInputError
from l2jax.hyperparameters import Hyperparameter, Values, listed, own_hyperparameter, parse_values

DEFAULT_STRENGTHS = "0 log:1e-3:1e-1:3"
EMBEDDED, EMBEDDED_TRAIN_SIZE = "mnist_small", 400
"""The data set that comes with l2jax, and how many of its examples a trial is trained on unless told otherwise."""
MAX_TRIALS = MAX_EPOCHS = 1_000_000
OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "rmsprop")
"""Optimizers of optax that the command knows by name."""


if TYPE_CHECKING:

    class SweptValues:
        """A field that takes any `Values` and holds numbers: the form in which type checkers understand that."""

        def __get__(self, config: SweepConfig | None, cls: type[SweepConfig]) -> tuple[float, ...]: ...
        def __set__(self, config: SweepConfig, values: Values) -> None: ...

    class OwnHyperparameters:
        """A field that takes a mapping of names to any `Values`, or None, and holds numbers."""

        def __get__(self, config: SweepConfig | None, cls: type[SweepConfig]) -> dict[str, tuple[float, ...]]: ...
        def __set__(self, config: SweepConfig, values: Mapping[str, Values] | None) -> None: ...
else:  # as tyro reads them
    SweptValues = tuple[float, ...]
    OwnHyperparameters = Mapping[str, SweptValues] | None


def _swept(option: str, default: Values, hyperparameter: Hyperparameter) -> Any:
    """A field of `SweepConfig` that takes several values."""
    values = parse_values(option, hyperparameter, default)
    return dataclasses.field(default=values, metadata={"hyperparameter": hyperparameter})


# Hyperparameters may be far larger than what trains, but float32 can square them: an overflow would hide divergence.
@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """One sweep: every combination of hyperparameters, trained from every seed on every fold.

    Numbers of any library are accepted and kept as Python's own; hyperparameters as `parse_values` reads them.

    Args:
      l2: L2 strengths: numbers, log:LOW:HIGH:COUNT grids.
      seeds: Trials per setting.
      epochs: Passes over the training examples.
      batch_size: Examples per step.
      learning_rate: Learning rates; same syntax as --l2.
      weight_decay: Decoupled weight decays, as in AdamW.
      label_smoothing: Label smoothings; same syntax as --l2.
      l1: L1 strengths; same syntax as --l2.
      l2_on: Layers that L2 and L1 fall on, such as 'conv*'.
      hyperparameters: Name and values of one of the model's or optimizer's arguments.
      model: Network of your own, in FILE.py.
      optimizer: Of optax: adam, adamw, sgd, lion, rmsprop; or your own.
      train_size: Training examples per trial, or a fraction; with folds, in all folds together.
        "auto": 400 of mnist_small, all of other data sets.
      val_size: Examples held out, or a fraction; "test": the test set instead.
      folds: Cross-validation folds; 1 holds out --val-size.
      label_noise: Fraction of training labels made wrong.
      dataset: Data set of tensorflow-datasets; path to .npz, images.
      image_size: Pixels per side, for folders of images.
      data_dir: Folder of the data sets of tensorflow-datasets.
      bfloat16: Multiply matrices in bfloat16; sum in float32.
      devices: Devices to use; on CPU one device is one core.
      trials_at_once: Trials to hold in memory; "all": as many as fit.
      autotune: Time the ways to compute; keep the fastest.

    Raises:
      InputError: for an option that cannot be used, whatever the data set.
    """

    l2: SweptValues = _swept("l2", DEFAULT_STRENGTHS, Hyperparameter("L2 strength", 0, 1e12))
    seeds: int = 5
    epochs: int = 20
    batch_size: int = 32
    learning_rate: SweptValues = _swept("learning_rate", 1e-3, Hyperparameter("learning rate", 1e-30, 1e30))
    weight_decay: SweptValues = _swept("weight_decay", 0.0, Hyperparameter("decoupled weight decay", 0, 1e12))
    label_smoothing: SweptValues = _swept(
        "label_smoothing", 0.0, Hyperparameter("label smoothing", 0, 1, below_high=True)
    )
    l1: SweptValues = _swept("l1", 0.0, Hyperparameter("L1 strength", 0, 1e12))
    l2_on: str = "*"
    hyperparameters: OwnHyperparameters = dataclasses.field(default=cast(Any, None), hash=False)
    model: str | None = None
    optimizer: str = OPTIMIZERS[0]
    train_size: int | float | Literal["auto"] | None = "auto"
    val_size: int | float | str | None = 400
    folds: int = 1
    label_noise: float = 0.0
    dataset: str = EMBEDDED
    image_size: int | None = None
    data_dir: str | None = None
    bfloat16: bool = False
    devices: int | None = None
    trials_at_once: int | None = None
    autotune: bool = False

    def check_extends(self, before: SweepConfig) -> None:
        """Raises InputError unless this sweep only adds epochs, seeds or values of hyperparameters to `before`.

        The options in `EXECUTION_OPTIONS` may differ.
        """
        for option in SweepConfig.__dataclass_fields__:
            then, now = getattr(before, option), getattr(self, option)
            if option in HYPERPARAMETERS:
                _check_has(option, then, now)
            elif option == "hyperparameters":
                if then.keys() != now.keys():
                    accepted = f"{' '.join(then) or 'none'}, as in the run to resume"
                    raise InvalidInputError(option, " ".join(now), accepted)
                for name in then:
                    _check_has(name, then[name], now[name])
            elif option in ("epochs", "seeds"):
                if now < then:
                    raise InvalidInputError(option, now, f"{then} of the run to resume, or more")
            elif option in CODE_OPTIONS:
                if _last_name(then) != _last_name(now):
                    accepted = f"{then or 'none'}, named again, as in the run to resume"
                    raise InvalidInputError(option, now or "none", accepted)
            elif option == "dataset" and (is_dataset_path(then) or is_dataset_path(now)):
                pass  # two paths may lead to the same examples, whose checksum is compared once they are read
            elif then != now and option not in EXECUTION_OPTIONS:
                raise InvalidInputError(option, now, f"{then}, as in the run to resume")

    def __post_init__(self) -> None:
        dataset = _dataset(self.dataset)
        train_size = self.train_size
        if train_size == "auto":
            train_size = EMBEDDED_TRAIN_SIZE if dataset == EMBEDDED else None
        checked: dict[str, Any] = {
            "dataset": dataset,
            "train_size": None if train_size is None else _size("train_size", train_size),
            "image_size": _optional_count("image_size", self.image_size),
            "seeds": _count("seeds", self.seeds, most=MAX_TRIALS),
            "epochs": _count("epochs", self.epochs, most=MAX_EPOCHS),
            "batch_size": _count("batch_size", self.batch_size),
            "folds": _count("folds", self.folds, most=MAX_TRIALS),
            "label_noise": _fraction("label_noise", self.label_noise),
            "devices": _optional_count("devices", self.devices),
            "trials_at_once": _optional_count("trials_at_once", self.trials_at_once),
            "hyperparameters": _own_hyperparameters(self.hyperparameters),
        }
        for name in HYPERPARAMETERS:
            checked[name] = parse_values(name, hyperparameter(name), getattr(self, name))
        if self.model is not None and not _is_code(self.model):
            raise InvalidInputError("model", self.model, "FILE.py:NAME")
        if self.optimizer not in OPTIMIZERS and not _is_code(self.optimizer):
            raise InvalidInputError("optimizer", self.optimizer, f"{', '.join(OPTIMIZERS)}, or FILE.py:NAME")
        if checked["folds"] > 1:
            checked["val_size"] = None
        elif self.val_size != "test":
            checked["val_size"] = _size("val_size", self.val_size, alternative=', "test"')
        if self.data_dir is not None:
            checked["data_dir"] = _path("data_dir", self.data_dir)
        for option, value in checked.items():
            object.__setattr__(self, option, value)  # the class is frozen: plain assignment would raise
        if self.num_trials > MAX_TRIALS:
            accepted = f"at most {MAX_TRIALS} trials (settings times seeds times folds)"
            raise InvalidInputError("seeds", self.seeds, accepted)
        if isinstance(self.train_size, int) and self.batch_size > self.train_size:
            raise InvalidInputError("batch_size", self.batch_size, f"at most train_size, {self.train_size}")

    @property
    def values(self) -> dict[str, tuple[float, ...]]:
        """The values of every hyperparameter by name: l2jax's, then a person's own."""
        return {name: getattr(self, name) for name in HYPERPARAMETERS} | self.hyperparameters

    @property
    def num_settings(self) -> int:
        """Combinations of hyperparameters."""
        return math.prod(map(len, self.values.values()))

    @property
    def num_trials(self) -> int:
        """Settings times seeds times folds."""
        return self.num_settings * self.seeds * self.folds


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    field.name: field.metadata["hyperparameter"]
    for field in dataclasses.fields(SweepConfig)
    if "hyperparameter" in field.metadata
}
"""The hyperparameters that l2jax knows, by the names of their fields. A person's own are in `hyperparameters`."""

EXECUTION_OPTIONS = ("data_dir", "devices", "trials_at_once", "autotune")
"""Options that change the results by rounding at most."""
CODE_OPTIONS = ("model", "optimizer")
"""Options that may name a file; what counts is its content, whose digest the run keeps."""


def hyperparameter(name: str) -> Hyperparameter:
    """The hyperparameter of this name, l2jax's or a person's own."""
    return HYPERPARAMETERS[name] if name in HYPERPARAMETERS else own_hyperparameter(name)


def _is_code(value: object) -> bool:
    """Whether a value has the form FILE.py:NAME."""
    return isinstance(value, str) and re.fullmatch(r".+\.py:[^\W\d]\w*", value) is not None


def _last_name(source: str | None) -> str:
    return (source or "").rpartition(":")[2]


def _check_has(option: str, before: tuple[float, ...], now: tuple[float, ...]) -> None:
    if not {*before} <= {*now}:
        given, accepted = listed(now), listed(before)
        raise InvalidInputError(option, given, f"{accepted} of the run to resume, and more")


def _own_hyperparameters(values: object) -> dict[str, tuple[float, ...]]:
    option, accepted = "hyperparameters", "names of arguments with their values"
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise InvalidInputError(option, values, accepted)
    for name in values:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInputError(option, name, accepted)
        if name in HYPERPARAMETERS:
            raise InvalidInputError(option, name, f"other names, as {name} is an option of its own")
    return {name: parse_values(name, own_hyperparameter(name), value) for name, value in values.items()}


def _count(option: str, value: object, most: int | None = None, alternative: str = "") -> int:
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1 or (most and count > most):
        accepted = "a whole number >= 1" + (f" and <= {most}" if most else "") + alternative
        raise InvalidInputError(option, value, accepted)
    return count


def _optional_count(option: str, value: object) -> int | None:
    return None if value is None else _count(option, value)


def _size(option: str, value: object, alternative: str = "") -> int | float:
    """A number of examples, or a fraction of them all."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, str) and 0 < float(value) < 1:  # type: ignore[arg-type]
            return float(value)  # type: ignore[arg-type]
    return _count(option, value, alternative=f"{alternative} or a fraction of all examples")


def _fraction(option: str, value: object) -> float:
    try:
        fraction = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        fraction = math.nan
    if not 0 <= fraction <= 1:
        raise InvalidInputError(option, value, "a fraction, 0 to 1")
    return fraction


def _dataset(value: object) -> str:
    """The name of a data set; that of a path begins as on the command line, or some paths would pass for names."""
    if isinstance(value, os.PathLike):
        path = os.fsdecode(value)
        return path if re.match(r"\.{0,2}/|~", path) else f"./{path}"
    if not isinstance(value, str):
        raise InvalidInputError("dataset", value, "the name of a data set, or a path")
    return value


def is_dataset_path(name: str) -> bool:
    """Whether the name of a data set is a path: begins with "/", "./", "../" or "~", or ends in ".npz"."""
    return bool(re.match(r"\.{0,2}/|\.{1,2}$|~|.*\.npz$", name))


def _path(option: str, value: object) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InvalidInputError(option, value, "a folder")
    return os.fspath(value)


RECIPES = {
    "quick": SweepConfig(),
    # Keras' regularizers.l2(c) is l2 = 2c: these are c = 0, 1e-4, 1e-3, 1e-2 and 1e-1.
    "article": SweepConfig(
        l2=(0.0, 2e-4, 2e-3, 2e-2, 2e-1), seeds=1, epochs=20, train_size=None, val_size="test", dataset="mnist"
    ),
}
"""Sweeps by name: the default, and MNIST in full, validated on the test set, as many tutorials do it."""
