"""What the engine needs of JAX, said once: a program of a person's own may have set it otherwise."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import Mesh

from l2jax.errors import InvalidInputError, reason
from l2jax.forks import forked_from_jax

F = TypeVar("F", bound=Callable[..., Any])

NO_MESH = Mesh(np.empty((), object), ())
"""As JAX has it where no mesh is set. The programs of the engine name their own."""


@contextlib.contextmanager
def own_jax() -> Iterator[None]:
    """Sets aside what a person set for their own program, as far as it would change what the engine computes.

    Results are those of float32, of compiled programs, and of one generator of random numbers. NaN is an outcome: of a
    trial that diverges, and of a test part without examples. `@own_jax()` makes a function run in it.
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
            jax.set_mesh(NO_MESH),
        ):
            stack.enter_context(setting)
        yield


def each_in_own_jax(function: F) -> F:
    """A generator that runs in `own_jax`, and its caller between two items as before."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        items = function(*args, **kwargs)
        while True:
            with own_jax():
                item = next(items, None)
            if item is None:
                return
            yield item

    return cast(F, run)


def check_process() -> None:
    """Checks that this process can compute: JAX finds devices, and did not start before the process was forked.

    Raises:
      InputError: if it cannot.
    """
    if forked_from_jax():
        accepted = 'a process that is not forked from one in which JAX runs: multiprocessing.get_context("spawn")'
        raise InvalidInputError("process", os.getpid(), accepted)
    try:
        jax.local_devices()
    except Exception as error:  # JAX has several for a platform that is not there
        platforms = jax.config.values["jax_platforms"]
        if platforms is None:
            raise
        accepted = f"a platform that JAX finds here, such as cpu ({reason(error)})"
        raise InvalidInputError("JAX_PLATFORMS", platforms, accepted) from None
