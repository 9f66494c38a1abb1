"""Refining a grid of strengths: where its best strength lies, and which ones to try next."""

from __future__ import annotations

from typing import Literal

import numpy as np

from l2jax.results.results import Results
from l2jax.results.words import number


def edge(results: Results) -> Literal["weakest", "strongest"] | None:
    """The end of the grid where the best strength lies; "weakest" is the weakest above 0.

    Returns:
      None if the best strength is 0 or inside the grid, or if there is only one strength.

    Raises:
      ValueError: if every setting has a diverged trial.
    """
    strengths, best = np.unique(results.data["l2"].values), results.best()
    if best == 0 or len(strengths) == 1:
        return None
    if best == strengths[-1]:
        return "strongest"
    return "weakest" if best == strengths[strengths > 0][0] else None


def next_strengths(results: Results, count: int = 3) -> tuple[float, ...]:
    """Strengths to try next: beyond the end of the grid if the best lies there, else between it and its neighbours.

    Beyond the grid, the steps are those of the grid. If 0 is the best, the next strengths are weaker than all others. A
    logarithmic step cannot reach 0, so 0 is never a neighbour.

    Args:
      count: how many strengths on each side.

    Returns:
      New strengths, ascending; none if no strength above 0 was tried.

    Raises:
      ValueError: if every setting has a diverged trial.
    """
    tried = np.unique(results.data["l2"].values)
    tried = tried[tried > 0]
    if not len(tried):
        return ()
    step = (tried[-1] / tried[0]) ** (1 / (len(tried) - 1)) if len(tried) > 1 else 10.0
    best, end, factors = results.best(), edge(results), step ** np.arange(1, count + 1)
    if end == "strongest":
        strengths = tried[-1] * factors
    elif end == "weakest" or best == 0:
        strengths = tried[0] / factors
    elif len(tried) == 1:
        strengths = np.concatenate([tried / factors, tried * factors])
    else:
        weaker, _, stronger = tried[np.searchsorted(tried, best) + np.arange(-1, 2)]
        strengths = np.concatenate([np.geomspace(*ends, count + 2) for ends in ((weaker, best), (best, stronger))])
    new, old = ({float(number(l2)) for l2 in values} for values in (strengths, tried))
    return tuple(sorted(new - old))
