"""`l2jax.network.ops` by its public name: convolution and max-pooling that stay fast in a sweep."""

from l2jax.network.ops import conv_general_dilated as conv_general_dilated
from l2jax.network.ops import max_pool as max_pool
