"""The penalty that the objective adds to the loss."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from l2jax.arguments import Arguments, bind, function_name
from l2jax.errors import InvalidInputError
from l2jax.network.network import Params, abstract_scalars
from l2jax.trial.kernels import kernels

PenaltyFn = Callable[..., Array]
"""A function of the parameters, and of hyperparameters by name, to a scalar."""


class Penalty(NamedTuple):
    """A penalty as a function of parameters and a trial's hyperparameters.

    Attributes:
      function: computes it.
      arguments: what the function takes.
    """

    function: PenaltyFn
    arguments: Arguments

    def __call__(self, params: Params, hyperparameters: Mapping[str, Array]) -> Array:
        return self.function(params, **self.arguments.select(hyperparameters))


def make_penalty(
    function: PenaltyFn, names: Sequence[str], hyperparameters: Mapping[str, tuple[float, ...]], params: Params
) -> Penalty:
    """The penalty of a person's own.

    Args:
      names: of the hyperparameters that the function takes.
      hyperparameters: the values of every hyperparameter of the sweep.
      params: of the network, or their shapes.

    Raises:
      InputError: for a function that does not return a scalar, or that branches on a hyperparameter that takes several
        values.
    """

    def check(arguments: Arguments) -> None:
        penalty = Penalty(function, arguments)
        # JAX cannot take a tuple that can be called, as this one is, for a function.
        value = jax.eval_shape(lambda params, scalars: penalty(params, scalars), params, abstract_scalars(arguments))
        if getattr(value, "shape", None) != ():
            given = f"{function_name(function)}, which returns {getattr(value, 'shape', type(value).__name__)}"
            raise InvalidInputError("penalty", given, "one that returns a scalar")

    return Penalty(function, bind("penalty", check, names, hyperparameters))


def l2_penalty(params: Params, l2: Array, *, layers: Sequence[str]) -> Array:
    """(l2 / 2) * sum(kernel**2) over the kernels of these layers; its gradient is l2 * kernel."""
    squares = [jnp.sum(kernel**2) for layer, kernel in kernels(params).items() if layer in layers]
    return l2 / 2 * sum(squares, start=jnp.float32(0))


def elastic_net(params: Params, l2: Array, l1: Array, *, layers: Sequence[str]) -> Array:
    """The L2 penalty plus l1 * sum(abs(kernel)) (Zou and Hastie, 2005).

    The gradient of abs at 0 is 0, as in PyTorch; that of `jnp.abs` is 1.
    """
    chosen = [kernel for layer, kernel in kernels(params).items() if layer in layers]
    absolutes = [jnp.sum(kernel * lax.stop_gradient(jnp.sign(kernel))) for kernel in chosen]
    return l2_penalty(params, l2, layers=layers) + l1 * sum(absolutes, start=jnp.float32(0))


def default_penalty(params: Params, patterns: str, *, with_l1: bool) -> Penalty:
    """The penalty of a sweep that is given none: L2, or with L1 the elastic net.

    Args:
      params: of the network, or their shapes.
      patterns: of the paths of the layers whose kernels count, such as "conv*", separated by spaces.

    Raises:
      InputError: if a pattern matches no layer.
    """
    layers = list(kernels(params))
    for pattern in patterns.split() or [patterns]:
        if not fnmatch.filter(layers, pattern):
            raise InvalidInputError("l2_on", pattern, f"patterns of layers that have a kernel: {', '.join(layers)}")
    chosen = tuple(layer for layer in layers if any(fnmatch.fnmatchcase(layer, one) for one in patterns.split()))
    function, strengths = (elastic_net, ("l2", "l1")) if with_l1 else (l2_penalty, ("l2",))
    return Penalty(function, Arguments(strengths).add({"layers": chosen}))
