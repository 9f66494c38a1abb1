"""A figure of pairs of values of two hyperparameters."""

from __future__ import annotations

import warnings
from typing import NamedTuple, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from l2jax.config import HYPERPARAMETERS
from l2jax.plot.style import CROSS, axis_label, trials_drawn
from l2jax.results import words
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results

MOST_CELLS_WITH_NUMBERS = 150


class _Grid(NamedTuple):
    """Mean validation losses at the last epoch, for values of a hyperparameter (rows) and strengths (columns).

    Attributes:
      values: of the hyperparameter, ascending.
      strengths: ascending.
      losses: (values, strengths)
      diverged: (values, strengths), whether the setting has a diverged trial.
      best: the best setting; None if every setting has a diverged trial.
      fixed: the best values of all other hyperparameters.
    """

    values: np.ndarray
    strengths: np.ndarray
    losses: np.ndarray
    diverged: np.ndarray
    best: dict[str, float] | None
    fixed: dict[str, float]


def heat_map(
    results: Results, hyperparameter: str = "learning_rate", *, ax: Axes | None = None, other: str | None = None
) -> Figure:
    """Mean validation loss at the last epoch, over L2 strengths (across) and values of another hyperparameter (up).

    The star marks the lowest mean, crosses mark settings with a diverged trial. Further hyperparameters are at their
    best values.

    Args:
      results: a sweep over L2 strengths and `hyperparameter`.
      hyperparameter: its name in `results.data`.
      ax: axes to draw in.
      other: the former name of `hyperparameter`.

    Raises:
      ValueError: if the sweep did not take several values of `hyperparameter`.
    """
    if other is not None:
        warnings.warn("heat_map(other=...) is now heat_map(hyperparameter=...)", DeprecationWarning, stacklevel=2)
        hyperparameter = other
    if hyperparameter not in results.swept or hyperparameter == "l2":
        raise ValueError(f"{hyperparameter} did not take several values in this sweep")
    grid = _grid(results, hyperparameter)
    if ax is None:
        size = (max(5.0, 2.4 + 0.72 * len(grid.strengths)), max(3.4, 1.8 + 0.5 * len(grid.values)))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(f"Validation loss: {trials_drawn(results, 'mean')}", fontsize="medium")
        ax = figure.subplots()
    _draw(ax, grid, star=(grid.best["l2"], grid.best[hyperparameter]) if grid.best else None)
    ax.set_xticks(range(len(grid.strengths)), [words.number(l2) for l2 in grid.strengths])
    ax.set_yticks(range(len(grid.values)), [words.number(value) for value in grid.values])
    ax.set(xlabel=HYPERPARAMETERS["l2"].name, ylabel=HYPERPARAMETERS[hyperparameter].name)
    fixed = f"; {words.setting(grid.fixed)}" if grid.fixed else ""
    ax.set_title(f"star: lowest mean{fixed}", fontsize="small")
    return cast(Figure, ax.figure)


def _grid(results: Results, hyperparameter: str) -> _Grid:
    table, best = results.settings_table().reset_index(), results.best_setting_or_none()
    others = [name for name in results.swept if name not in ("l2", hyperparameter)]
    for name in others:
        table = table[table[name] == (best[name] if best else table[name].iloc[0])]
    losses, num_diverged = (
        table.pivot(index=hyperparameter, columns="l2", values=column) for column in ("val_loss", "num_diverged")
    )
    return _Grid(
        losses.index.to_numpy(),
        losses.columns.to_numpy(),
        losses.to_numpy(),
        num_diverged.to_numpy() > 0,
        best,
        {name: best[name] for name in others} if best else {},
    )


def _draw(ax: Axes, grid: _Grid, star: tuple[float, float] | None) -> None:
    """Draws the cells with their numbers, if these are not too many, crosses, a colour bar, and the star."""
    losses = np.ma.masked_invalid(np.where(grid.diverged, np.nan, grid.losses))
    norm = LogNorm(losses.min(), losses.max()) if losses.count() else None
    colours = matplotlib.colormaps["viridis_r"].with_extremes(bad="0.9")
    image = ax.imshow(losses, cmap=colours, norm=norm, origin="lower", aspect="auto")
    with_numbers = losses.size <= MOST_CELLS_WITH_NUMBERS
    for (row, column), loss in np.ndenumerate(grid.losses):
        if grid.diverged[row, column]:
            ax.plot(column, row, color="0.2", **CROSS)
        elif with_numbers:
            colour = "white" if _is_dark(image, loss) else "black"
            ax.text(column, row, f"{loss:.3g}", ha="center", va="center", color=colour, size=8)
    if star:
        column, row = np.searchsorted(grid.strengths, star[0]), np.searchsorted(grid.values, star[1])
        above = 0.3 if with_numbers else 0
        ax.plot(column, row + above, marker="*", markersize=11, color="white", markeredgecolor="0.2")
    if losses.count():
        bar = cast(Figure, ax.figure).colorbar(image, ax=ax, label=axis_label(METRICS["val_loss"]))
        bar.ax.yaxis.set_major_formatter("{x:.3g}")
        bar.ax.yaxis.set_minor_formatter("{x:.3g}")


def _is_dark(image: AxesImage, value: float) -> bool:
    ((red, green, blue, _),) = image.to_rgba(np.array([value]))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
