"""Figures of a sweep. Each function returns its figure; given `axes`, it draws there and returns theirs."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from l2jax.plot.curves import loss_curves, objective_curves
from l2jax.plot.heat_map import heat_map
from l2jax.plot.magnitudes import kernel_magnitudes
from l2jax.plot.overfitting import overfitting
from l2jax.plot.strength import validation_curve
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
    """All figures that fit these results, by name."""
    line = results.along_l2()
    yield "loss_curves", loss_curves(line)
    yield "validation_curve", validation_curve(line)
    yield "overfitting", overfitting(line)
    if "kernel_magnitudes" in line.data:  # which older results lack
        yield "kernel_magnitudes", kernel_magnitudes(line)
    if "running_objective" in line.data:
        yield "objective_curves", objective_curves(line)
    for other in results.swept:
        if other != "l2" and results.data.sizes["l2"] > 1:
            yield f"heat_map_{other}", heat_map(results, other)
