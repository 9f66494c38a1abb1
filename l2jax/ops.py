"""Convolution and max-pooling for your own network that stay fast in a sweep.

    nnx.Conv(..., conv_general_dilated=l2jax.ops.conv_general_dilated)
    l2jax.ops.max_pool(x, (2, 2), strides=(2, 2))

`l2jax.network.ops` says why others do not.
"""

from l2jax.network.ops import conv_general_dilated, max_pool

__all__ = ("conv_general_dilated", "max_pool")
