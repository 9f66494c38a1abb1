"""The built-in network, written for one trial."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax import Array

from l2jax.errors import InvalidInputError


class CNN(nnx.Module):
    """conv 3x3x32, ReLU, 2x2 max-pool, conv 3x3x64, ReLU, 2x2 max-pool, flatten, dense: logits.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010), biases zero.

    Args:
      image_shape: (H, W, C), at least 10x10 pixels.
      num_classes: number of logits.
      rngs: random streams; the parameters come from `params`.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = image_shape
        rows, cols = (((size - 2) // 2 - 2) // 2 for size in (height, width))
        glorot = nnx.initializers.glorot_uniform()
        self.conv1 = nnx.Conv(channels, 32, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.dense = nnx.Linear(rows * cols * 64, num_classes, kernel_init=glorot, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Images (B, H, W, C) in [0, 1] to logits (B, classes)."""
        x = nnx.max_pool(nnx.relu(self.conv1(images)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.dense(x.reshape(len(x), -1))


def default_model(image_shape: tuple[int, ...], num_classes: int) -> Callable[[nnx.Rngs], CNN]:
    """The network of a sweep that is given none: `CNN`.

    Args:
      image_shape: (H, W, C).
      num_classes: number of logits.

    Raises:
      InputError: for images of another rank, or smaller than 10x10.
    """
    if len(image_shape) != 3:
        accepted = "(H, W, C) for l2jax.CNN, or a model of your own"
        raise InvalidInputError("dataset", f"images of shape {image_shape}", accepted)
    if min(image_shape[:2]) < 10:
        size = f"images of {image_shape[0]}x{image_shape[1]}"
        raise InvalidInputError("dataset", size, "10x10 or more for l2jax.CNN")
    return lambda rngs: CNN(image_shape, num_classes, rngs=rngs)
