"""The kernels of a network: what the penalty and the weight decay act on unless told otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.network.network import Params, by_path, path_name


def kernels(params: Params) -> dict[str, Array]:
    """Every parameter named `kernel`, by the path of its layer, such as "blocks/0/conv"."""
    parts = {path.rpartition("/"): leaf for path, leaf in by_path(params).items()}
    return {layer: leaf for (layer, _, name), leaf in parts.items() if name == "kernel"}


def kernel_mask(params: Params) -> Params:
    """A tree like `params` that is True for kernels."""
    return jax.tree.map_with_path(lambda path, _: path_name(path).rpartition("/")[2] == "kernel", params)


def sums_of_squares(params: Params) -> dict[str, Array]:
    """The sum of squares of each layer's kernel."""
    return {layer: jnp.sum(kernel**2) for layer, kernel in kernels(params).items()}
