"""What the engine needs of JAX, said once: a program of a person's own may have set it otherwise."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, use_abstract_mesh

P, R, Y = ParamSpec("P"), TypeVar("R"), TypeVar("Y")


@contextlib.contextmanager
def own_jax() -> Iterator[None]:
    """Sets aside what a person set for their own program, as far as it would change what the engine computes.

    Results are those of float32, of compiled programs, and of one generator of random numbers. NaN is an outcome: of a
    trial that diverges, and of a test part without examples.
    """
    with contextlib.ExitStack() as stack:
        for setting in (
            jax.enable_x64(False),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.check_tracer_leaks(False),
            jax.numpy_dtype_promotion("standard"),
            jax.default_prng_impl("threefry2x32"),
            jax.threefry_partitionable(True),
            jax.transfer_guard("allow"),
            use_abstract_mesh(AbstractMesh((), ())),
        ):
            stack.enter_context(setting)
        yield


def in_own_jax(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs in `own_jax`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_jax():
            return function(*args, **kwargs)

    return run


def each_in_own_jax(function: Callable[P, Iterator[Y]]) -> Callable[P, Iterator[Y]]:
    """A generator that runs in `own_jax`, and its caller between two items as before."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[Y]:
        items = function(*args, **kwargs)
        while True:
            with own_jax():
                item = next(items, None)
            if item is None:
                return
            yield item

    return run
