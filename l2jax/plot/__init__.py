"""Figures of a sweep, by matplotlib. Each function returns its figure; given `axes`, it draws in them."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from l2jax.plot.curves import loss_curves, objective_curves
from l2jax.plot.heat_map import heat_map
from l2jax.plot.magnitudes import kernel_magnitudes
from l2jax.plot.overfitting import overfitting
from l2jax.plot.validation import validation_curve
from l2jax.results.results import Results

__all__ = [
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
    along_l2 = results.along_l2()
    yield "loss_curves", loss_curves(along_l2)
    yield "validation_curve", validation_curve(along_l2)
    yield "overfitting", overfitting(along_l2)
    if "kernel_magnitudes" in along_l2.data:  # older results lack it
        yield "kernel_magnitudes", kernel_magnitudes(along_l2)
    if "running_objective" in along_l2.data:
        yield "objective_curves", objective_curves(along_l2)
    for hyperparameter in results.swept:
        if hyperparameter != "l2":
            yield f"heat_map_{hyperparameter}", heat_map(results, hyperparameter)
