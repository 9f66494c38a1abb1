"""Flax NNX modules as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from l2jax.arguments import Arguments
from l2jax.network.dropout import allow_array_rates
from l2jax.network.network import ModelState, Network, Params, abstract_init, mode_arguments


def from_nnx(
    name: str, construct: Callable[[nnx.Rngs, Mapping[str, Any]], nnx.Module], arguments: Arguments
) -> Network:
    """The network that a constructor makes from random streams and arguments.

    The state is every variable but `nnx.Param`, and arrays that are attributes. In it, random keys are the integers
    that they consist of, because only these can be written to files.
    """
    traced: list[Any] = []

    def split(key: Array, hyperparameters: Mapping[str, Array]) -> tuple[Params, ModelState]:
        # Flax takes an attribute that is an array as data, but one that is a tracer as static, which would leak it.
        for array in (key, jnp.zeros(())):
            nnx.register_data_type(type(array))
        graphdef, params, state = nnx.split(construct(nnx.Rngs(key), arguments.select(hyperparameters)), nnx.Param, ...)
        traced[:] = graphdef, [_is_key(leaf) for leaf in jax.tree.leaves(state)]
        return params, state

    def init(key: Array, hyperparameters: Mapping[str, Array]) -> tuple[Params, ModelState]:
        params, state = split(key, hyperparameters)
        return params, _keys_to_data(state)

    def merged(params: Params, state: ModelState) -> nnx.Module:
        # A copy, because variables that belong to an outer trace cannot be written to inside a loop.
        module = nnx.merge(graphdef, params, _data_to_keys(state, are_keys), copy=True)
        allow_array_rates(module)
        return module

    def in_eval_mode(params: Params, state: ModelState) -> nnx.Module:
        module = merged(params, state)
        module.eval()
        return module

    def apply(params: Params, state: ModelState, images: Array, train: bool) -> tuple[Array, Params, ModelState]:
        module: Any = merged(params, state)
        module.train() if train else module.eval()
        logits = module(images, **mode_arguments(module.__call__, train))
        _, params, after = nnx.split(module, nnx.Param, ...)
        after = dict(nnx.to_flat_state(cast(nnx.State, after)))
        # Variables that a call adds, such as intermediates, are left behind.
        paths = [path for path, _ in nnx.to_flat_state(state)]
        return logits, params, _keys_to_data(nnx.from_flat_state([(path, after[path]) for path in paths]))

    _, state = abstract_init(split, arguments)
    graphdef, are_keys = traced
    variables = [variable for _, variable in nnx.to_flat_state(state)]
    uses_batch = any(isinstance(v, nnx.Variable) and not isinstance(v, nnx.RngState) for v in variables)
    return Network(name, arguments, init, apply, uses_batch, in_eval_mode)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _keys_to_data(state: ModelState) -> ModelState:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)


def _data_to_keys(state: ModelState, are_keys: list[bool]) -> ModelState:
    leaves, structure = jax.tree.flatten(state)
    wrapped = [jax.random.wrap_key_data(leaf) if key else leaf for leaf, key in zip(leaves, are_keys, strict=True)]
    return jax.tree.unflatten(structure, wrapped)
