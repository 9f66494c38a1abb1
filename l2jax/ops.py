"""Deprecated: convolution and max-pooling for your own network, now those of Flax and JAX, which sweeps make fast."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from flax import nnx
from jax import Array, lax

__all__ = ("conv_general_dilated", "max_pool")


def _deprecated(function: Callable[..., Array], now: str) -> Callable[..., Array]:
    name = function.__name__

    @functools.wraps(function)
    def deprecated(*args: Any, **options: Any) -> Array:
        warnings.warn(f"l2jax.ops.{name} is now {now}, which sweeps make fast", DeprecationWarning, stacklevel=2)
        return function(*args, **options)

    return deprecated


conv_general_dilated = _deprecated(lax.conv_general_dilated, "what nnx.Conv does by itself")
max_pool = _deprecated(nnx.max_pool, "nnx.max_pool")
