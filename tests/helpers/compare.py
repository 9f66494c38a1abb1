"""Our functions beside independent ones."""

import functools

import jax
import numpy as np

from helpers import plain
from l2jax.engine.programs import COMPILER_OPTIONS


def mlp(rngs):
    """A network for `small`: quick to compile."""
    return plain.MLP(49, 10, rngs=rngs)


def as_in_sweeps(f):
    """Compiled with the options of a sweep."""
    return jax.jit(f, compiler_options=COMPILER_OPTIONS)


def assert_equal(of, ours, theirs, *arguments, tolerance=2e-6):
    """What `of` makes of our function and these arguments is what it makes of theirs, but for rounding."""
    ours, theirs = (functools.partial(of, function) for function in (ours, theirs))
    assert_close(as_in_sweeps(ours)(*arguments), plain.jit(theirs)(*arguments), tolerance)


def assert_close(actual, expected, tolerance=2e-6):
    """Equal up to float32 rounding, relative to the largest value of each array."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
