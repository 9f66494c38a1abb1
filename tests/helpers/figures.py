"""Sweeps to draw, and what to find in axes."""

import numpy as np

from helpers.results import SWEEPS, synthetic

ALL_DIVERGED = [(l2, seed, 1 + 3 * seed) for l2 in (0.0, 0.01, 0.1) for seed in range(3)]
CASES = {
    **SWEEPS,
    "all diverged": synthetic((0.0, 0.01, 0.1), diverged=ALL_DIVERGED),
    "20 strengths": synthetic((0.0, *np.logspace(-6, 0, 19))),
    "within a decade": synthetic((0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)),
}
BETWEEN = "one strength", "one seed", "one epoch", "only 0", "no 0", "default"
"""Cases between the extremes: "one trial, one epoch", "some diverged", "20 strengths", "within a decade"."""


def lines(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def crosses(ax):
    return [line for line in ax.get_lines() if line.get_marker() == "x"]
