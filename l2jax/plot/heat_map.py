"""What each pair of values of two hyperparameters reached."""

from __future__ import annotations

from typing import cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from l2jax.plot.style import CROSS, name_of, trials_shown
from l2jax.results.results import Results

MOST_CELLS_WITH_NUMBERS = 150


def heat_map(results: Results, other: str = "learning_rate", ax: Axes | None = None) -> Figure:
    """Mean validation loss at the last epoch, over L2 strengths (across) and values of another hyperparameter (up).

    The star marks the lowest mean, crosses what has a diverged trial. Further hyperparameters are at their best.

    Raises ValueError if `other` was not swept.
    """
    if other not in results.swept or other == "l2":
        raise ValueError(f"{other} did not take several values in this sweep")
    fixed = [name for name in results.swept if name not in ("l2", other)]
    table = results.settings_table().reset_index()
    best = None if (table["num_diverged"] > 0).all() else results.best_setting()
    for name in fixed:
        table = table[table[name] == (best[name] if best else table[name].iloc[0])]
    losses = table.pivot(index=other, columns="l2", values="val_loss").to_numpy()
    diverged = table.pivot(index=other, columns="l2", values="num_diverged").to_numpy() > 0
    across, up = np.unique(table["l2"]), np.unique(table[other])
    words = str(results.data[other].attrs["long_name"])
    if ax is None:
        size = (max(5.0, 2.4 + 0.72 * len(across)), max(3.4, 1.8 + 0.5 * len(up)))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(f"Validation loss: {trials_shown(results, 'mean')}", fontsize="medium")
        ax = figure.subplots()

    shown = np.ma.masked_invalid(np.where(diverged, np.nan, losses))
    norm = LogNorm(shown.min(), shown.max()) if shown.count() else None
    colours = matplotlib.colormaps["viridis_r"].with_extremes(bad="0.9")
    image = ax.imshow(shown, cmap=colours, norm=norm, origin="lower", aspect="auto")
    with_numbers = losses.size <= MOST_CELLS_WITH_NUMBERS
    for (row, column), loss in np.ndenumerate(losses):
        if diverged[row, column]:
            ax.plot(column, row, color="0.2", **CROSS)
        elif with_numbers:
            red, green, blue, _ = image.to_rgba(loss)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ax.text(column, row, f"{loss:.3g}", ha="center", va="center", color="white" if dark else "black", size=8)
    if best:
        place = np.searchsorted(across, best["l2"]), np.searchsorted(up, best[other]) + (0.3 if with_numbers else 0)
        ax.plot(*place, marker="*", markersize=11, color="white", markeredgecolor="0.2")
    ax.set_xticks(range(len(across)), [name_of(l2) for l2 in across])
    ax.set_yticks(range(len(up)), [name_of(value) for value in up])
    ax.set(xlabel="L2 strength", ylabel=words)
    fixed_words = [f"{name.replace('_', ' ')} {name_of(best[name])}" for name in fixed if best]
    ax.set_title("star: lowest mean" + "".join(f"; {words}" for words in fixed_words), fontsize="small")
    figure = cast(Figure, ax.figure)
    if shown.count():
        bar = figure.colorbar(image, ax=ax, label="cross-entropy (nat)")
        bar.ax.yaxis.set_major_formatter("{x:.3g}")
        bar.ax.yaxis.set_minor_formatter("{x:.3g}")
    return figure
