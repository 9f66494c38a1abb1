"""A network as pure functions of one trial."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from l2jax.arguments import Arguments

Params = Any
"""A tree of arrays: what is trained, and penalised if it is named `kernel`."""
ModelState = Any
"""A tree of arrays: everything else that a network carries from step to step, such as batch statistics."""


class Network(NamedTuple):
    """One trial's network.

    Attributes:
      name: of its class.
      arguments: the hyperparameters that its constructor takes.
      init: makes parameters and state from a key and the hyperparameters of the trial. What the network does with its
        own, such as the rate of its dropout, is part of the state.
      apply: (params, state, images (B, ...), train) to (logits (B, classes), params, state), where `train` is a Python
        bool. Few networks change their parameters in a call, as `nnx.WeightNorm` does.
      uses_batch: what it computes for an example may depend on the others of its batch, as with batch norm.
      module: (params, state) to the Flax module that has them, in eval mode; a Linen module is bound to them.
    """

    name: str
    arguments: Arguments
    init: Callable[[Array, Mapping[str, Array]], tuple[Params, ModelState]]
    apply: Callable[[Params, ModelState, Array, bool], tuple[Array, Params, ModelState]]
    uses_batch: bool
    module: Callable[[Params, ModelState], Any]


def abstract_init(init: Callable[[Array, Mapping[str, Array]], Any], arguments: Arguments) -> Any:
    """The shapes and types of what a function of a key and hyperparameters returns; nothing is computed or compiled."""
    seed, scalars = jax.ShapeDtypeStruct((), "uint32"), abstract_scalars(arguments)
    return jax.eval_shape(lambda seed, scalars: init(jax.random.key(seed), scalars), seed, scalars)


def abstract_scalars(arguments: Arguments) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of the hyperparameters that a function takes as arrays."""
    return {name: jax.ShapeDtypeStruct((), "float32") for name in arguments.arrays}


def mode_arguments(call: Callable[..., Any], train: bool) -> dict[str, Any]:
    """The arguments by which a module is told whether it trains, as far as its call takes them."""
    values = {"train": train, "training": train, "deterministic": not train, "use_running_average": not train}
    accepted = inspect.signature(call).parameters
    return {name: value for name, value in values.items() if name in accepted}


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, such as "dense/kernel"; without the "value" that ends those of NNX variables."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf, as JAX gives it, in words."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
