"""Flax Linen modules as pure functions."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from l2jax.network.network import ModelState, Network, Params, abstract_init, mode_arguments


def from_linen(module: linen.Module, image_shape: tuple[int, ...]) -> Network:
    """The network of a Linen module: `module.init(key, images)` gives its variables.

    The state is every collection but `params`, a key, and the number of steps. Random streams, such as `dropout`, get
    a new key in each step: `jax.random.fold_in(jax.random.fold_in(key, 1), step)`, from step 0.
    """

    def init(key: Array) -> tuple[Params, ModelState]:
        images = jnp.zeros((1, *image_shape))
        collections = dict(module.init(key, images, **mode_arguments(module.__call__, False)))
        params = collections.pop("params", {})
        stream = jax.random.key_data(jax.random.fold_in(key, 1))
        return params, {"collections": collections, "key": stream, "step": jnp.uint32(0)}

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        variables = {"params": params} | state["collections"]
        modes = mode_arguments(module.__call__, train)
        if not train:
            return cast(Array, module.apply(variables, images, **modes)), params, state
        key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
        mutable = list(state["collections"])
        logits, collections = module.apply(variables, images, rngs={"dropout": key}, mutable=mutable, **modes)
        return logits, params, {"collections": dict(collections), "key": state["key"], "step": state["step"] + 1}

    _, state = abstract_init(init)
    return Network(init, apply, uses_batch=bool(state["collections"]))
