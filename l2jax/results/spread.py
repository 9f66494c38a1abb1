"""How very many trials spread: neighbouring strengths in groups, and the mean and the quantiles of a group's trials.

Figures and the page draw these where a line or a point per trial could not be told from another, nor fit a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from l2jax.results import words
from l2jax.results.comparisons import by_strength
from l2jax.results.estimates import nanmean
from l2jax.results.results import Results

MOST_TRIALS, MOST_STRENGTHS = 300, 50
"""The most that are drawn one by one."""
LINES, POINTS = 8, 60
"""Groups that are drawn as lines in several colours, and as points along an axis."""
QUANTILES = (0.05, 0.25, 0.75, 0.95)
READING = "mean, middle 50% and middle 90%"


class Group(NamedTuple):
    """Neighbouring strengths.

    Attributes:
      members: their places among all strengths, in ascending order.
      low: the weakest of them.
      high: the strongest.
    """

    members: slice
    low: float
    high: float

    @property
    def middle(self) -> float:
        """The geometric mean of the ends: itself for a single strength."""
        return self.low if self.low == self.high else float(np.sqrt(self.low) * np.sqrt(self.high))

    def __str__(self) -> str:
        """The strengths as numbers, such as "0.001 to 0.01"."""
        low, high = words.number(self.low), words.number(self.high)
        return low if low == high else f"{low} to {high}"


class Spread(NamedTuple):
    """The trials of each group, (groups, ...). NaN where no trial has finished.

    Attributes:
      mean: of the trials that have not diverged.
      quantiles: by `QUANTILES`, each (groups, ...).
    """

    mean: np.ndarray
    quantiles: tuple[np.ndarray, ...]

    def part(self, groups: int | slice) -> Spread:
        """That of some of the groups."""
        return Spread(self.mean[groups], tuple(values[groups] for values in self.quantiles))

    def repeated(self, times: int) -> Spread:
        """Each group several times."""
        return Spread(self.mean.repeat(times, 0), tuple(values.repeat(times, 0) for values in self.quantiles))


def is_large(results: Results) -> bool:
    """Whether a sweep of strengths has too many trials or strengths to draw each of them."""
    return results.data["diverged"].size > MOST_TRIALS or results.data.sizes["l2"] > MOST_STRENGTHS


def strength_groups(strengths: np.ndarray, most: int) -> list[Group]:
    """At most this many groups of ascending strengths: 0 by itself, the others by equal parts of the logarithmic axis.

    As many strengths or fewer are a group each.
    """
    edges = np.arange(len(strengths) + 1)
    if len(strengths) > most:
        first = int(np.count_nonzero(strengths == 0))
        logs = np.log(strengths[first:])
        inner = np.searchsorted(logs, np.linspace(logs[0], logs[-1], most - first + 1)[1:-1]) + first
        edges = np.unique(np.concatenate([[0, first], inner, [len(strengths)]]))
    slices = [slice(int(start), int(end)) for start, end in itertools.pairwise(edges)]
    return [Group(members, *map(float, strengths[members][[0, -1]])) for members in slices]


def spread(values: np.ndarray, diverged: np.ndarray, groups: Sequence[Group]) -> Spread:
    """The mean and the quantiles of the trials of each group that have not diverged.

    Args:
      values: (strengths, trials, ...), with strengths in ascending order.
      diverged: (strengths, trials).
    """
    means, quantiles = [], []
    for group in groups:
        finished = values[group.members][~diverged[group.members]]
        means.append(nanmean(np.moveaxis(finished, 0, -1)))
        if len(finished):
            quantiles.append(np.quantile(finished, QUANTILES, axis=0))
        else:
            quantiles.append(np.full((len(QUANTILES), *values.shape[2:]), np.nan))
    low, lower, upper, high = np.stack(quantiles, 1)
    return Spread(np.stack(means), (low, lower, upper, high))


def trials_by_strength(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The strengths in ascending order, and which of their trials have diverged: (strengths, trials)."""
    diverged = results.data["diverged"].sortby("l2")
    return diverged["l2"].values, by_strength(diverged) > 0
