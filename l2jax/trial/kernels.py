"""The kernels of a network: what the penalty and the weight decay act on."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

Params = nnx.State


def kernels(params: Params) -> dict[str, Array]:
    """Every parameter named `kernel`, by the path of its layer, such as "blocks/0/conv"."""
    parameters = nnx.to_flat_state(params)
    return {"/".join(map(str, path[:-1])): kernel[...] for path, kernel in parameters if path[-1] == "kernel"}


def kernel_mask(params: Params) -> Params:
    """A tree like `params` that is True for kernels."""
    parameters = nnx.to_flat_state(params)
    return nnx.from_flat_state([(path, parameter.replace(path[-1] == "kernel")) for path, parameter in parameters])


def sums_of_squares(params: Params) -> dict[str, Array]:
    """The sum of squares of each layer's kernel."""
    return {layer: jnp.sum(kernel**2) for layer, kernel in kernels(params).items()}


def penalty(params: Params, l2: Array) -> Array:
    """The L2 penalty (l2 / 2) * sum(kernel**2) over all kernels; its gradient is l2 * kernel."""
    return l2 / 2 * sum(sums_of_squares(params).values(), start=jnp.float32(0))
