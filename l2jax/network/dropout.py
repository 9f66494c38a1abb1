"""Dropout at a rate that is an array, so that trials can differ in it. Flax compares the rate with Python's 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import Array


def drop(inputs: Array, rate: Array, key: Array, broadcast_dims: Sequence[int]) -> Array:
    """Dropout (Srivastava et al., 2014) with the masks of Flax' own layers; a rate of 1 drops everything."""
    shape = [1 if axis in broadcast_dims else size for axis, size in enumerate(inputs.shape)]
    mask = jnp.broadcast_to(jax.random.bernoulli(key, 1 - rate, shape), inputs.shape)
    probability = jnp.where(rate < 1, 1 - rate, 1).astype(inputs.dtype)
    return jnp.where(mask, inputs / probability, jnp.zeros_like(inputs))


class ArrayDropout(nnx.Dropout):
    """`nnx.Dropout` whose rate is an array."""

    def __call__(self, inputs: Array, *, deterministic: bool | None = None, rngs: Any = None) -> Array:
        if self.deterministic if deterministic is None else deterministic:
            return inputs
        rngs = self.rngs if rngs is None else rngs
        stream = rngs[self.rng_collection] if isinstance(rngs, nnx.Rngs) else rngs
        key = stream() if isinstance(stream, nnx.RngStream) else stream
        return drop(inputs, jnp.asarray(self.rate), key, [axis % inputs.ndim for axis in self.broadcast_dims])


def allow_array_rates(module: nnx.Module) -> None:
    """Changes the layers of a module that are `nnx.Dropout` with an array as rate to `ArrayDropout`."""
    for _, layer in nnx.iter_modules(module):
        if type(layer) is nnx.Dropout and isinstance(layer.rate, Array):
            layer.__class__ = ArrayDropout


def linen_dropout(call: Any, arguments: tuple[Any, ...], options: dict[str, Any], context: Any) -> Any:
    """An interceptor for `linen.intercept_methods` that computes `linen.Dropout` with an array as rate."""
    layer = context.module
    if type(layer) is not linen.Dropout or context.method_name != "__call__" or not isinstance(layer.rate, Array):
        return call(*arguments, **options)

    def bound(inputs: Array, deterministic: bool | None = None, rng: Array | None = None) -> Array:
        if linen.merge_param("deterministic", layer.deterministic, deterministic):
            return inputs
        key = layer.make_rng(layer.rng_collection) if rng is None else rng
        return drop(inputs, jnp.asarray(layer.rate), key, [axis % inputs.ndim for axis in layer.broadcast_dims])

    return bound(*arguments, **options)
