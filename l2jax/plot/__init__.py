"""Figures of a sweep, by matplotlib. Each function returns its figure; given `axes`, it draws in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from l2jax.plot import backend as backend  # before any other module imports matplotlib
from l2jax.plot.curves import loss_curves, objective_curves
from l2jax.plot.heat_map import heat_map
from l2jax.plot.magnitudes import kernel_magnitudes
from l2jax.plot.overfitting import overfitting
from l2jax.plot.validation import validation_curve
from l2jax.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "drawings",
    "figures",
    "heat_map",
    "kernel_magnitudes",
    "loss_curves",
    "objective_curves",
    "overfitting",
    "validation_curve",
]


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yields the name and the figure of everything that can be drawn of these results."""
    for name, draw in drawings(results).items():
        yield name, draw()


def drawings(results: Results) -> dict[str, Callable[[], Figure]]:
    """The functions that draw everything that can be drawn of these results, by the name of the figure."""
    along_l2 = results.along_l2()
    draw: dict[str, Callable[[], Figure]] = {
        "loss_curves": lambda: loss_curves(along_l2),
        "validation_curve": lambda: validation_curve(along_l2),
        "overfitting": lambda: overfitting(along_l2),
    }
    if "kernel_magnitudes" in along_l2.data:  # older results lack it
        draw["kernel_magnitudes"] = lambda: kernel_magnitudes(along_l2)
    if "running_objective" in along_l2.data:
        draw["objective_curves"] = lambda: objective_curves(along_l2)
    for hyperparameter in results.swept:
        if hyperparameter != "l2":
            draw[f"heat_map_{hyperparameter}"] = functools.partial(heat_map, results, hyperparameter)
    return draw
