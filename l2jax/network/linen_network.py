"""Flax Linen modules as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from l2jax.arguments import Arguments
from l2jax.network.dropout import linen_dropout
from l2jax.network.network import ModelState, Network, Params, abstract_init, mode_arguments


def from_linen(
    name: str,
    construct: Callable[[Mapping[str, Any]], linen.Module],
    arguments: Arguments,
    image_shape: tuple[int, ...],
) -> Network:
    """The network of the Linen module that a constructor makes: `module.init(key, images)` gives its variables.

    The state is every collection but `params`, a key, the number of steps, and the hyperparameters that the constructor
    takes. Random streams, such as `dropout`, get a new key in each step:
    `jax.random.fold_in(jax.random.fold_in(key, 1), step)`, from step 0.
    """

    def init(key: Array, hyperparameters: Mapping[str, Array]) -> tuple[Params, ModelState]:
        module, images = construct(arguments.select(hyperparameters)), jnp.zeros((1, *image_shape))
        with linen.intercept_methods(linen_dropout):
            collections = dict(module.init(key, images, **mode_arguments(module.__call__, False)))
        params = collections.pop("params", {})
        stream = jax.random.key_data(jax.random.fold_in(key, 1))
        arrays = {name: hyperparameters[name] for name in arguments.arrays}
        state = {"collections": collections, "key": stream, "step": jnp.uint32(0)}
        return params, state | ({"hyperparameters": arrays} if arrays else {})

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        module = construct(arguments.select(state.get("hyperparameters", {})))
        variables = {"params": params} | state["collections"]
        modes = mode_arguments(module.__call__, train)
        if not train:
            with linen.intercept_methods(linen_dropout):
                return cast(Array, module.apply(variables, images, **modes)), params, state
        key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
        mutable = list(state["collections"])
        with linen.intercept_methods(linen_dropout):
            logits, collections = module.apply(variables, images, rngs={"dropout": key}, mutable=mutable, **modes)
        return logits, params, state | {"collections": dict(collections), "step": state["step"] + 1}

    _, state = abstract_init(init, arguments)
    return Network(name, arguments, init, apply, uses_batch=bool(state["collections"]))
