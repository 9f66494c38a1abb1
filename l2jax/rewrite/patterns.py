"""Several equations that GPUs compute faster as one operation: convolution, bias, ReLU and 2x2 max-pooling."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn

from l2jax.native.axes import Pair
from l2jax.rewrite.interpreter import Made

IMAGES = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
"""Images (B, H, W, C), kernels (K, K, C, O)."""
POOLING = {
    "window_dimensions": (1, 2, 2, 1),
    "window_strides": (1, 2, 2, 1),
    "padding": ((0, 0),) * 4,
    "base_dilation": (1,) * 4,
    "window_dilation": (1,) * 4,
}
CONVOLUTION = {
    "window_strides": (1, 1),
    "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1),
    "feature_group_count": 1,
    "batch_group_count": 1,
    "dimension_numbers": IMAGES,
}


class Matched(NamedTuple):
    """A convolution of stride 1, bias, ReLU and 2x2 max-pooling, all float32.

    Attributes:
      x_BHWC: the images.
      kernel_KKCO: the kernel.
      bias_O: the bias.
      padding: of the images, ((top, bottom), (left, right)).
      precision: of the convolution.
      before: the equation that made the images, if nothing else uses them.
    """

    x_BHWC: Array
    kernel_KKCO: Array
    bias_O: Array
    padding: tuple[Pair, ...]
    precision: Any
    before: JaxprEqn | None

    def inputs(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The rows and columns of the padded images that so many pooled ones are computed from.

        Pooling drops an odd last row and column. What they alone were computed from need not be computed either.
        """
        return tuple(2 * n + k - 1 for n, k in zip(size, self.kernel_KKCO.shape[:2], strict=True))


def match(pooling: JaxprEqn, made: Made) -> Matched | None:
    """What an equation ends, if that is 2x2 max-pooling of the ReLU of a convolution plus bias."""
    if pooling.primitive.name != "reduce_window_max" or not _has(pooling, POOLING):
        return None
    relu = made.only_for(pooling.invars[0])
    addition = made.only_for(relu.invars[0]) if relu and is_relu(relu) else None
    if addition is None or addition.primitive.name != "add":
        return None
    terms = {eqn.primitive.name: eqn for atom in addition.invars if (eqn := made.only_for(atom))}
    if terms.keys() != {"conv_general_dilated", "reshape"} or not _has(terms["conv_general_dilated"], CONVOLUTION):
        return None
    image, *_ = terms["conv_general_dilated"].invars
    x_BHWC, kernel_KKCO = map(made.value, terms["conv_general_dilated"].invars)
    bias_O = made.value(terms["reshape"].invars[0])
    if bias_O.shape != kernel_KKCO.shape[-1:] or any(a.dtype != jnp.float32 for a in (x_BHWC, kernel_KKCO, bias_O)):
        return None
    params, before = terms["conv_general_dilated"].params, made.only_for(image)
    padding = tuple(map(tuple, params["padding"]))
    return Matched(x_BHWC, kernel_KKCO, bias_O, padding, params["precision"], before)


def _has(eqn: JaxprEqn, params: dict[str, Any]) -> bool:
    return all(eqn.params[name] == value for name, value in params.items())


def is_relu(eqn: JaxprEqn) -> bool:
    """Whether it is `jax.nn.relu`, whose gradient at 0 is 0; that of a maximum with 0 is one half."""
    if eqn.primitive.name != "custom_jvp_call":
        return False
    (first, *others) = eqn.params["call_jaxpr"].eqns
    return not others and first.primitive.name in ("jit", "pjit") and first.params["name"] == "relu"
