"""A network as pure functions of one trial."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

Params = Any
"""A tree of arrays: what is trained, and penalised if it is named `kernel`."""
ModelState = Any
"""A tree of arrays: everything else that a network carries from step to step, such as batch statistics."""


class Network(NamedTuple):
    """One trial's network.

    Attributes:
      init: makes parameters and state from a key.
      apply: (params, state, images (B, ...), train) to (logits (B, classes), params, state), where `train` is a Python
        bool. Few networks change their parameters in a call, as `nnx.WeightNorm` does.
      uses_batch: what it computes for an example may depend on the others of its batch, as with batch norm.
      module: (params, state) to the Flax module that has them, in eval mode; a Linen module is bound to them.
    """

    init: Callable[[Array], tuple[Params, ModelState]]
    apply: Callable[[Params, ModelState, Array, bool], tuple[Array, Params, ModelState]]
    uses_batch: bool
    module: Callable[[Params, ModelState], Any]


def abstract_init(init: Callable[[Array], Any]) -> Any:
    """The shapes and types of what a function of a key returns; nothing is computed or compiled."""
    return jax.eval_shape(lambda seed: init(jax.random.key(seed)), jax.ShapeDtypeStruct((), "uint32"))


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
