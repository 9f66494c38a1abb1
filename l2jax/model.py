"""The network, written for one trial."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from l2jax.fused import conv_relu_max_pool


class CNN(nnx.Module):
    """conv 3x3x32, ReLU, 2x2 max-pool, conv 3x3x64, ReLU, 2x2 max-pool, flatten, dense: logits.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010), biases zero. The parameters are those of `nnx.Conv` and
    `nnx.Linear`, so that they fit the same network made of plain Flax layers.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        """For images (H, W, C) of at least 10x10 pixels."""
        height, width, channels = image_shape
        self.pooled_size = tuple(((size - 2) // 2 - 2) // 2 for size in (height, width))
        glorot = {"kernel_init": nnx.initializers.glorot_uniform(), "rngs": rngs}
        self.conv1 = nnx.Conv(channels, 32, (3, 3), padding="VALID", **glorot)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", **glorot)
        self.dense = nnx.Linear(64 * self.pooled_size[0] * self.pooled_size[1], num_classes, **glorot)

    def __call__(self, images: Array) -> Array:
        """Images (B, H, W, C) in [0, 1] to logits (B, classes)."""
        rows, cols = self.pooled_size
        # Pooling leaves out odd last rows and columns: of 28, the last two reach no logit.
        x = images[:, : 4 * rows + 6, : 4 * cols + 6].transpose(3, 1, 2, 0)
        x = conv_relu_max_pool(x, self.conv1.kernel[...], self.conv1.bias[...])
        x = conv_relu_max_pool(x, self.conv2.kernel[...], self.conv2.bias[...])
        # The dense kernel's rows follow a flattened (H, W, C) activation.
        kernel = self.dense.kernel[...].reshape(rows, cols, 64, -1).transpose(2, 0, 1, 3)
        return jnp.tensordot(x, kernel, ((0, 1, 2), (0, 1, 2))) + self.dense.bias[...][None]
