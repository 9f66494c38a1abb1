"""The networks that people bring: how they are constructed, and what a sweep asks of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen, nnx

from l2jax.arguments import Arguments, argument_names, bind, function_name, parameters
from l2jax.errors import InvalidInputError
from l2jax.network.linen_network import from_linen
from l2jax.network.network import Network, Params, abstract_init, by_path
from l2jax.network.nnx_network import from_nnx

ModelFn = Callable[..., Any] | linen.Module
"""A function of `nnx.Rngs` that makes an `nnx.Module`, such as its class; or a `linen.Module`, or its class."""


def make_network(
    model: ModelFn, image_shape: tuple[int, ...], hyperparameters: Mapping[str, tuple[float, ...]] | None = None
) -> Network:
    """The network of one trial as pure functions.

    Args:
      hyperparameters: the values of every hyperparameter of the sweep. The model gets those that it names as arguments.

    Raises:
      InputError: if the model does not make a Flax module, or branches on a hyperparameter that takes several values.
    """
    accepted = "a function that makes a Flax module from nnx.Rngs, such as its class, or a Linen module"
    if isinstance(model, nnx.Module) or (not callable(model) and not isinstance(model, linen.Module)):
        given = f"a module, {type(model).__name__}, that is made already" if isinstance(model, nnx.Module) else model
        raise InvalidInputError("model", given, accepted)
    values = hyperparameters or {}
    names = [name for name in _argument_names(model) if name in values]

    def network(arguments: Arguments) -> Network:
        module = _abstract_module(model, arguments)
        name = type(module).__name__
        if isinstance(module, linen.Module):
            return from_linen(name, functools.partial(_construct, model, None), arguments, image_shape)
        if isinstance(module, nnx.Module):
            return from_nnx(name, functools.partial(_construct, model), arguments)
        given = f"{function_name(model)}, which makes {name}"
        raise InvalidInputError("model", given, accepted)

    def evaluate(arguments: Arguments) -> None:
        made, images = network(arguments), jax.ShapeDtypeStruct((2, *image_shape), "float32")
        params, state = abstract_init(made.init, arguments)
        jax.eval_shape(lambda p, s, x: made.apply(p, s, x, True), params, state, images)

    return network(bind("model", evaluate, names, values) if names else Arguments())


def check_network(network: Network, image_shape: tuple[int, ...], num_classes: int) -> Params:
    """Checks that a sweep can train a network, and returns the shapes of its parameters.

    Raises:
      InputError: for a network that has no parameter named kernel, on which the penalty falls, or that does not
        return logits (B, num_classes).
    """
    params, state = abstract_init(network.init, network.arguments)
    names = [path.replace("/", ".") for path in by_path(params)]
    if not any(path.rpartition(".")[2] == "kernel" for path in names):
        accepted = "a network with parameters named kernel, on which the penalty falls"
        raise InvalidInputError("model", f"{network.name} with {', '.join(names) or 'no parameters'}", accepted)
    images = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    logits, *_ = jax.eval_shape(lambda p, s, x: network.apply(p, s, x, False), params, state, images)
    if getattr(logits, "shape", None) != (2, num_classes):
        given = f"{network.name}, from images {images.shape} to {getattr(logits, 'shape', type(logits).__name__)}"
        raise InvalidInputError("model", given, f"one that maps them to logits {(2, num_classes)}")
    return params


def _argument_names(model: ModelFn) -> list[str]:
    """A Linen module is made anew with other values of its fields."""
    return argument_names(type(model) if isinstance(model, linen.Module) else model)


def _abstract_module(model: ModelFn, arguments: Arguments) -> Any:
    """The module that a model makes, without its arrays."""
    made: list[Any] = []

    def make(key: jax.Array, hyperparameters: Mapping[str, jax.Array]) -> None:
        made.append(_construct(model, nnx.Rngs(key), arguments.select(hyperparameters)))

    abstract_init(make, arguments)
    return made[0]


def _construct(model: ModelFn, rngs: nnx.Rngs | None, hyperparameters: Mapping[str, Any]) -> Any:
    if isinstance(model, linen.Module):
        return model.clone(**hyperparameters) if hyperparameters else model
    if isinstance(model, type) and issubclass(model, linen.Module):
        return model(**hyperparameters)
    function = model.func if isinstance(model, functools.partial) else model
    others = [parameter.name for parameter in parameters(function) if parameter.name not in hyperparameters]
    if "rngs" in others:
        return model(rngs=rngs, **hyperparameters)
    return model(rngs, **hyperparameters) if others else model(**hyperparameters)
