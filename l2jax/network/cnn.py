"""The built-in network, written for one trial."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from l2jax.errors import InvalidInputError
from l2jax.network.fused import DEFAULT_LOWERING, Lowering, conv_relu_max_pool

GLOROT = nnx.initializers.glorot_uniform()


class ConvReluPool(nnx.Conv):
    """3x3 convolution without padding, ReLU and 2x2 max-pooling, with the parameters of `nnx.Conv`."""

    def __init__(self, in_features: int, out_features: int, *, lowering: Lowering, rngs: nnx.Rngs):
        super().__init__(in_features, out_features, (3, 3), padding="VALID", kernel_init=GLOROT, rngs=rngs)
        self.lowering = lowering

    def __call__(self, x_CHWB: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(C, H, W, B) to (O, (H - 2) // 2, (W - 2) // 2, B)."""
        assert self.bias is not None  # as it would be with use_bias=False
        return conv_relu_max_pool(x_CHWB, self.kernel[...], self.bias[...], self.lowering)


class FlattenLinear(nnx.Linear):
    """A dense layer on the flattened activations of each image, with the parameters of `nnx.Linear`.

    The kernel's rows follow (H, W, C), as those of a dense layer behind Flax's own convolutions.
    """

    def __init__(self, in_features: int, out_features: int, *, lowering: Lowering, rngs: nnx.Rngs):
        super().__init__(in_features, out_features, kernel_init=GLOROT, rngs=rngs)
        self.lowering = lowering

    def __call__(self, x_CHWB: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(C, H, W, B) to (B, O)."""
        assert self.bias is not None  # as it would be with use_bias=False
        channels, rows, cols, _ = x_CHWB.shape
        kernel_NO = self.kernel[...]
        kernel_NO = kernel_NO.reshape(rows, cols, channels, -1).transpose(2, 0, 1, 3).reshape(kernel_NO.shape)
        x_NB, kernel_NO = (a.astype(self.lowering.dtype) for a in (x_CHWB.reshape(len(kernel_NO), -1), kernel_NO))
        out_BO = lax.dot_general(x_NB, kernel_NO, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return out_BO + self.bias[...][None]


class CNN(nnx.Module):
    """conv 3x3x32, ReLU, 2x2 max-pool, conv 3x3x64, ReLU, 2x2 max-pool, flatten, dense: logits.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010), biases zero. The parameters are those of `nnx.Conv` and
    `nnx.Linear`, so that they fit the same network made of plain Flax layers.

    Args:
      image_shape: (H, W, C), at least 10x10 pixels.
      num_classes: number of logits.
      lowering: how convolutions and the dense layer are computed.
      rngs: random streams; the parameters come from `params`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        lowering: Lowering = DEFAULT_LOWERING,
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape
        self.pooled_size = tuple(((size - 2) // 2 - 2) // 2 for size in (height, width))
        num_features = 64 * self.pooled_size[0] * self.pooled_size[1]
        self.conv1 = ConvReluPool(channels, 32, lowering=lowering, rngs=rngs)
        self.conv2 = ConvReluPool(32, 64, lowering=lowering, rngs=rngs)
        self.dense = FlattenLinear(num_features, num_classes, lowering=lowering, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Images (B, H, W, C) in [0, 1] to logits (B, classes)."""
        x = self._crop(images).transpose(3, 1, 2, 0)  # the layers take (C, H, W, B)
        x = self.conv1(x)
        x = self.conv2(x)
        return self.dense(x)

    def _crop(self, images: Array) -> Array:
        """Leaves out last rows and columns that reach no logit, because pooling drops odd ones: of 28, two."""
        rows, cols = (4 * size + 6 for size in self.pooled_size)
        return images[:, :rows, :cols]


def default_model(
    image_shape: tuple[int, ...],
    num_classes: int,
    *,
    bfloat16: bool = False,
    few_products: int = DEFAULT_LOWERING.few_products,
) -> Callable[[nnx.Rngs], CNN]:
    """The network of a sweep that is given none: `CNN`.

    Args:
      image_shape: (H, W, C).
      num_classes: number of logits.
      bfloat16: whether the inputs of matrix products are rounded to bfloat16.
      few_products: see `Lowering`.

    Raises:
      InputError: for images of another rank, or smaller than 10x10.
    """
    if len(image_shape) != 3:
        accepted = "(H, W, C) for l2jax.CNN, or a model of your own"
        raise InvalidInputError("dataset", f"images of shape {image_shape}", accepted)
    if min(image_shape[:2]) < 10:
        size = f"images of {image_shape[0]}x{image_shape[1]}"
        raise InvalidInputError("dataset", size, "10x10 or more for l2jax.CNN")
    lowering = Lowering(jnp.bfloat16 if bfloat16 else jnp.float32, few_products)
    return lambda rngs: CNN(image_shape, num_classes, lowering=lowering, rngs=rngs)
