"""Where the best strength lies in the grid, and which ones to try next."""

from __future__ import annotations

from typing import Literal

import numpy as np

from l2jax.results.results import Results


def edge(results: Results) -> Literal["weakest", "strongest"] | None:
    """The end of the grid that the best strength is at; None inside, at 0, and where there is but one strength."""
    strengths, best = np.unique(results.data["l2"].values), results.best()
    if best == 0 or len(strengths) == 1:
        return None
    return "strongest" if best == strengths[-1] else "weakest" if best == strengths[strengths > 0][0] else None


def next_strengths(results: Results, count: int = 3) -> tuple[float, ...]:
    """Strengths to try next: beyond the end of the grid that is best, otherwise between the best and its neighbours.

    `count` of them on a side, beyond by the grid's own steps. 0, which no logarithmic step reaches, is no neighbour:
    where it is best, weaker ones than all tried. () where no strength above 0 was tried.
    """
    tried = np.unique(results.data["l2"].values)
    tried = tried[tried > 0]
    if not len(tried):
        return ()
    step = (tried[-1] / tried[0]) ** (1 / (len(tried) - 1)) if len(tried) > 1 else 10.0
    best, at, beyond = results.best(), edge(results), step ** np.arange(1, count + 1)
    if at == "strongest":
        found = tried[-1] * beyond
    elif at == "weakest" or best == 0:
        found = tried[0] / beyond
    elif len(tried) == 1:
        found = np.concatenate([tried / beyond, tried * beyond])
    else:
        below, _, above = tried[np.searchsorted(tried, best) + np.arange(-1, 2)]
        found = np.concatenate([np.geomspace(below, best, count + 2), np.geomspace(best, above, count + 2)])
    return tuple(sorted({float(f"{l2:.3g}") for l2 in found} - {float(f"{l2:.3g}") for l2 in tried}))
