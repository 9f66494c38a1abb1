"""The networks that people bring: how they are constructed, and what a sweep asks of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import linen, nnx

from l2jax.errors import InvalidInputError
from l2jax.network.linen_network import from_linen
from l2jax.network.network import Network, Params, abstract_init, by_path
from l2jax.network.nnx_network import from_nnx

ModelFn = Callable[..., Any] | linen.Module
"""A function of `nnx.Rngs` that makes an `nnx.Module`, such as its class; or a `linen.Module`, or its class."""


def make_network(model: ModelFn, image_shape: tuple[int, ...]) -> Network:
    """The network of one trial as pure functions.

    Raises:
      InputError: if the model does not make a Flax module.
    """
    accepted = "a function that makes a Flax module from nnx.Rngs, such as its class, or a Linen module"
    if isinstance(model, nnx.Module) or (not callable(model) and not isinstance(model, linen.Module)):
        given = f"a module, {type(model).__name__}, that is made already" if isinstance(model, nnx.Module) else model
        raise InvalidInputError("model", given, accepted)
    module = _abstract_module(model)
    if isinstance(module, linen.Module):
        return from_linen(module, image_shape)
    if isinstance(module, nnx.Module):
        return from_nnx(functools.partial(_construct, model))
    given = f"{getattr(model, '__name__', type(model).__name__)}, which makes {type(module).__name__}"
    raise InvalidInputError("model", given, accepted)


def check_network(network: Network, name: str, image_shape: tuple[int, ...], num_classes: int) -> Params:
    """Checks that a sweep can train a network, and returns the shapes of its parameters.

    Raises:
      InputError: for a network that has no parameter named kernel, on which the penalty falls, or that does not
        return logits (B, num_classes).
    """
    params, state = abstract_init(network.init)
    names = [path.replace("/", ".") for path in by_path(params)]
    if not any(path.rpartition(".")[2] == "kernel" for path in names):
        accepted = "a network with parameters named kernel, on which the penalty falls"
        raise InvalidInputError("model", f"{name} with {', '.join(names) or 'no parameters'}", accepted)
    images = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    logits, *_ = jax.eval_shape(lambda p, s, x: network.apply(p, s, x, False), params, state, images)
    if getattr(logits, "shape", None) != (2, num_classes):
        given = f"{name}, from images {images.shape} to {getattr(logits, 'shape', type(logits).__name__)}"
        raise InvalidInputError("model", given, f"one that maps them to logits {(2, num_classes)}")
    return params


def model_name(model: ModelFn) -> str:
    """The name of the network's class."""
    return type(_abstract_module(model)).__name__


def _abstract_module(model: ModelFn) -> Any:
    """The module that a model makes, without its arrays."""
    made: list[Any] = []
    jax.eval_shape(lambda: made.append(_construct(model, nnx.Rngs(0))))
    return made[0]


def _construct(model: ModelFn, rngs: nnx.Rngs) -> Any:
    if isinstance(model, linen.Module):
        return model
    if isinstance(model, type) and issubclass(model, linen.Module):
        return model()
    # A class of Flax shows the signature of its metaclass, which takes anything.
    function = model.func if isinstance(model, functools.partial) else model
    parameters = [*inspect.signature(function.__init__ if isinstance(function, type) else function).parameters]
    if "rngs" in parameters:
        return model(rngs=rngs)
    return model(rngs) if parameters not in ([], ["self"]) else model()
