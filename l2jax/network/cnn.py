"""The network, written for one trial, and the check of a person's own."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from l2jax.errors import InvalidInputError
from l2jax.network.fused import DEFAULT_LOWERING, Lowering, conv_relu_max_pool

Model = Callable[[nnx.Rngs], nnx.Module]
"""Makes the network of one trial."""


class CNN(nnx.Module):
    """conv 3x3x32, ReLU, 2x2 max-pool, conv 3x3x64, ReLU, 2x2 max-pool, flatten, dense: logits.

    Kernels are Glorot-uniform (Glorot and Bengio, 2010), biases zero. The parameters are those of `nnx.Conv` and
    `nnx.Linear`, so that they fit the same network made of plain Flax layers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        lowering: Lowering = DEFAULT_LOWERING,
        rngs: nnx.Rngs,
    ):
        """For images (H, W, C) of at least 10x10 pixels."""
        self.lowering = lowering
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
        x = conv_relu_max_pool(x, *_params(self.conv1), self.lowering)
        x = conv_relu_max_pool(x, *_params(self.conv2), self.lowering)
        kernel, bias = _params(self.dense)
        # The dense kernel's rows follow a flattened (H, W, C) activation; x is (C, H, W, B).
        kernel = kernel.reshape(rows, cols, 64, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        x, kernel = (factor.astype(self.lowering.dtype) for factor in (x.reshape(len(kernel), -1), kernel))
        logits = lax.dot_general(x, kernel, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return logits + bias[None]


def _params(layer: nnx.Conv | nnx.Linear) -> tuple[Array, Array]:
    """Kernel and bias."""
    assert layer.bias is not None  # as it would be with use_bias=False
    return layer.kernel[...], layer.bias[...]


def cnn_for(image_shape: tuple[int, int, int], num_classes: int, lowering: Lowering = DEFAULT_LOWERING) -> Model:
    """`CNN` for these images."""
    if min(image_shape[:2]) < 10:
        raise InvalidInputError(
            "dataset", f"images of {image_shape[0]}x{image_shape[1]}", "10x10 or more for l2jax.CNN"
        )

    def cnn(rngs: nnx.Rngs) -> CNN:
        return CNN(image_shape, num_classes, lowering=lowering, rngs=rngs)

    return cnn


def check_model(model: Model, image_shape: tuple[int, ...], num_classes: int) -> nnx.State:
    """Returns the shapes of a model's parameters.

    Raises:
      InputError: for a model that has other state than parameters, none of them named kernel, on which the
        penalty falls, or that does not return logits.
    """
    network = nnx.eval_shape(lambda: model(nnx.Rngs(0)))
    _, params, others = nnx.split(network, nnx.Param, ...)
    if kinds := sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(others)}):
        given = f"{model_name(model)} with {', '.join(kinds)}"
        raise InvalidInputError("model", given, "a network whose only state is nnx.Param")
    if not any(path[-1] == "kernel" for path, _ in nnx.to_flat_state(params)):
        names = ", ".join(".".join(map(str, path)) for path, _ in nnx.to_flat_state(params))
        accepted = "a network with parameters named kernel, on which the penalty falls"
        raise InvalidInputError("model", f"{model_name(model)} with {names or 'no parameters'}", accepted)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    logits = nnx.eval_shape(lambda images: model(nnx.Rngs(0))(images), images)
    if getattr(logits, "shape", None) != (2, num_classes):
        given = f"{model_name(model)}, from images {images.shape} to {getattr(logits, 'shape', type(logits).__name__)}"
        raise InvalidInputError("model", given, f"one that maps them to logits {(2, num_classes)}")
    return params


def model_name(model: Model) -> str:
    """Of the function, or of the network that it makes, where the function has none of its own."""
    name = getattr(model, "__name__", type(model).__name__)
    return name if name != "<lambda>" else type(nnx.eval_shape(lambda: model(nnx.Rngs(0)))).__name__


ModelFn = Model


def default_model(image_shape, num_classes, *, bfloat16=False, few_products=DEFAULT_LOWERING.few_products):
    return cnn_for(image_shape, num_classes, Lowering(jnp.bfloat16 if bfloat16 else jnp.float32, few_products))
