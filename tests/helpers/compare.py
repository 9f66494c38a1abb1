"""Comparisons of our functions with independent ones."""

import functools

import jax
import numpy as np

from helpers import plain
from l2jax.engine.programs import COMPILER_OPTIONS

mlp = plain.mlp(49, 10)
"""A network for the data set `small`: quick to compile."""


def as_in_sweeps(f):
    """Compiles with the options of a sweep."""
    return jax.jit(f, compiler_options=COMPILER_OPTIONS)


def assert_same_transform(transform, ours, reference, *args, tolerance=2e-6):
    """Asserts that `transform(ours, *args)` equals `transform(reference, *args)`, up to rounding.

    Args:
      transform: for example a function that takes values and gradients of its first argument.
      ours: compiled as in sweeps.
      reference: an independent function, compiled quickly.
      tolerance: as in `assert_close`.
    """
    ours, reference = (functools.partial(transform, function) for function in (ours, reference))
    assert_close(as_in_sweeps(ours)(*args), plain.jit(reference)(*args), tolerance)


def assert_close(actual, expected, tolerance=2e-6):
    """Asserts equality up to float32 rounding, relative to the largest value of each array."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
