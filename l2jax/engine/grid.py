"""The grid of trials, and trees of arrays whose leading axis is theirs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np

from l2jax.results.metrics import REPLICATES
from l2jax.trial.train import Trial

Tree = TypeVar("Tree")


def make_trials(axes: dict[str, tuple]) -> Trial:
    """Every combination of the axes' values, (T,), the last axis fastest.

    Args:
      axes: values by name, those of each hyperparameter, of `seed` and of `fold`.
    """
    columns = dict(zip(axes, np.array(list(itertools.product(*axes.values()))).T, strict=True))
    hyperparameters = {name: columns[name].astype(np.float32) for name in axes if name not in REPLICATES}
    split_index = (columns["seed"] * len(axes["fold"]) + columns["fold"]).astype(np.int32)
    return Trial(hyperparameters, columns["seed"].astype(np.uint32), split_index)


def trial_keys(trials: Trial) -> list[tuple]:
    """The values of each of n trials as a tuple, by which it is recognised in another sweep."""
    return list(zip(*(values.tolist() for values in jax.tree.leaves(trials)), strict=True))


def find_trials(wanted: Trial, trials: Trial) -> list[int]:
    """The index in `trials` of each of the wanted ones; raises KeyError where there is none."""
    index = {key: number for number, key in enumerate(trial_keys(trials))}
    return [index[key] for key in trial_keys(wanted)]


def tree_take(tree: Tree, indices: Sequence[int]) -> Tree:
    """These rows of every array of a tree."""
    return jax.tree.map(lambda values: values[list(indices)], tree)


def tree_stack(trees: Sequence[Tree]) -> Tree:
    """One tree of arrays (n, ...) from n trees."""
    return jax.tree.map(lambda *values: np.stack(values), *trees)


def tree_unstack(tree: Tree) -> list[Tree]:
    """The n trees that make up a tree of arrays (n, ...)."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, row) for row in zip(*leaves, strict=True)]
