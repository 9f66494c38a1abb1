"""A figure of pairs of values of two hyperparameters."""

from __future__ import annotations

import math
import warnings
from typing import cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator

from l2jax.config import hyperparameter as known
from l2jax.plot.style import CROSS, StyledFigure, axis_label, own_style, trials_drawn
from l2jax.results import words
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results

MOST_CELLS_WITH_NUMBERS, MOST_COLUMNS_WITH_NUMBERS = 150, 20
LARGEST = (14.0, 9.0)
"""Of a figure, in inches."""
MOST_TICKS = 12
WIDE = 3.0
"""A highest loss over the lowest from which on not every digit has room beside the colour bar."""


@own_style()
def heat_map(
    results: Results, hyperparameter: str = "learning_rate", *, ax: Axes | None = None, other: str | None = None
) -> Figure:
    """Mean validation loss at the last epoch, over L2 strengths (across) and values of another hyperparameter (up).

    The star marks the lowest mean, crosses mark settings with a diverged trial, which are grey where the cells are too
    small for numbers. Further hyperparameters are at their best values.

    Args:
      results: a sweep over L2 strengths and `hyperparameter`.
      hyperparameter: its name in `results.data`.
      ax: axes to draw in.
      other: the former name of `hyperparameter`.

    Raises:
      ValueError: if the sweep did not take several values of `hyperparameter`.
    """
    if other is not None:
        warnings.warn("heat_map(other=...) is now heat_map(hyperparameter=...)", DeprecationWarning, stacklevel=3)
        hyperparameter = other
    if hyperparameter not in results.swept or hyperparameter == "l2":
        raise ValueError(f"{hyperparameter} did not take several values in this sweep")
    best = results.best_setting_or_none()
    fixed = {name: best[name] for name in results.swept if name not in ("l2", hyperparameter)} if best else {}
    losses, diverged = _tables(results, hyperparameter, fixed)
    rows, columns = losses.shape
    if ax is None:
        figure = StyledFigure(
            figsize=(
                min(LARGEST[0], max(5.0, 2.4 + 0.72 * columns)),
                min(LARGEST[1], max(3.4, 1.8 + 0.5 * rows)),
            ),
            layout="constrained",
        )
        figure.suptitle(f"Validation loss: {trials_drawn(results, 'mean')}", fontsize="medium")
        ax = figure.subplots()
    _draw(ax, losses, diverged, star=(best["l2"], best[hyperparameter]) if best else None)
    ax.set_xticks(*_ticks(losses.columns.to_numpy()))
    ax.set_yticks(*_ticks(losses.index.to_numpy()))
    ax.set(xlabel=known("l2").name, ylabel=known(hyperparameter).name)
    grey = "; grey: has a diverged trial" if diverged.to_numpy().any() and not _have_numbers(losses) else ""
    ax.set_title(f"star: lowest mean{grey}{'; ' + words.setting(fixed) if fixed else ''}", fontsize="small")
    return cast(Figure, ax.figure)


def _tables(results: Results, hyperparameter: str, fixed: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean losses, and which settings have a diverged trial, over values (rows) and strengths (columns), ascending.

    Args:
      fixed: values of further hyperparameters; without them, their lowest ones.
    """
    table = results.settings_table().reset_index()
    for name in results.swept:
        if name not in ("l2", hyperparameter):
            table = table[table[name] == fixed.get(name, table[name].iloc[0])]
    losses, num_diverged = (
        table.pivot(index=hyperparameter, columns="l2", values=column) for column in ("val_loss", "num_diverged")
    )
    return losses, num_diverged > 0


def _ticks(values: np.ndarray) -> tuple[list[int], list[str]]:
    """Places of the values that get a label, and these labels: of all, or of some at equal distances."""
    places = range(0, len(values), math.ceil(len(values) / MOST_TICKS))
    return list(places), [words.number(values[place]) for place in places]


def _draw(ax: Axes, losses: pd.DataFrame, diverged: pd.DataFrame, star: tuple[float, float] | None) -> None:
    """Draws the cells with their numbers, if these are not too many, crosses, a colour bar, and the star."""
    cells, with_numbers = np.ma.masked_invalid(losses.where(~diverged).to_numpy()), _have_numbers(losses)
    norm = LogNorm(cells.min(), cells.max()) if cells.count() else None
    colours = matplotlib.colormaps["viridis_r"].with_extremes(bad="0.9" if with_numbers else "0.8")
    image = ax.imshow(cells, cmap=colours, norm=norm, origin="lower", aspect="auto")
    for (row, column), loss in np.ndenumerate(losses.to_numpy()) if with_numbers else ():
        if diverged.iat[row, column]:
            ax.plot(column, row, color="0.2", **CROSS)
        else:
            colour = "white" if _is_dark(image, loss) else "black"
            ax.text(column, row, f"{loss:.3g}", ha="center", va="center", color=colour, size=8)
    if star:
        column, row = losses.columns.searchsorted(star[0]), losses.index.searchsorted(star[1])
        offset = 0.3 if with_numbers else 0  # above the number
        ax.plot(column, row + offset, marker="*", markersize=11, color="white", markeredgecolor="0.2")
    if cells.count():
        bar = cast(Figure, ax.figure).colorbar(image, ax=ax, label=axis_label(METRICS["val_loss"]))
        bar.ax.yaxis.set_major_formatter("{x:.3g}")
        bar.ax.yaxis.set_minor_formatter("{x:.3g}")
        if cells.max() > WIDE * cells.min():
            bar.ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def _have_numbers(losses: pd.DataFrame) -> bool:
    """Whether the cells are large enough for numbers."""
    return losses.size <= MOST_CELLS_WITH_NUMBERS and losses.shape[1] <= MOST_COLUMNS_WITH_NUMBERS


def _is_dark(image: AxesImage, value: float) -> bool:
    ((red, green, blue, _),) = image.to_rgba(np.array([value]))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
