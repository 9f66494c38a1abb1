"""Numbers and settings as text, tables and figures write them."""

from __future__ import annotations

from collections.abc import Mapping

from l2jax.config import hyperparameter


def number(value: float) -> str:
    """A value of a hyperparameter, such as "0.001"."""
    return f"{value:.3g}"


def strength(l2: float) -> str:
    """A strength in a sentence: "no L2" or, for example, "l2 = 0.01"."""
    return "no L2" if l2 == 0 else f"l2 = {number(l2)}"


def setting(values: Mapping[str, float]) -> str:
    """Values of hyperparameters, such as "learning rate 0.001, label smoothing 0.1"."""
    return ", ".join(f"{hyperparameter(name).name} {number(value)}" for name, value in values.items())
