"""How products are computed."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike


class Lowering(NamedTuple):
    """A way to compute a network, which changes its results by rounding only.

    Attributes:
      dtype: type of the inputs of products; accumulation is float32.
      few_products: if an output of a pooled convolution is the sum of at most this many products, multiply-adds replace
        the matrix product; on GPUs (measured).
    """

    dtype: DTypeLike = jnp.float32
    few_products: int = 16


DEFAULT_LOWERING = Lowering()
