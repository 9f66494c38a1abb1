"""Functions that people bring, and the hyperparameters that they take as arguments, by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from l2jax.errors import InvalidInputError


class Arguments(NamedTuple):
    """The arguments that a function gets by name.

    Attributes:
      arrays: the names of hyperparameters that it takes as arrays (), each trial its own.
      constants: names and values of what is the same for every trial, such as hyperparameters that it branches on.
    """

    arrays: tuple[str, ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        return [*self.arrays, *dict(self.constants)]

    def add(self, constants: Mapping[str, Any]) -> Arguments:
        """These arguments and further constants."""
        return self._replace(constants=(*self.constants, *constants.items()))

    def select(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, from the values of all hyperparameters."""
        return {name: hyperparameters[name] for name in self.arrays} | dict(self.constants)


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, a class or a partial, without `self`."""
    # Some classes show the signature of their metaclass, which takes anything.
    is_class = isinstance(function, type)
    signature = inspect.signature(function.__init__ if is_class else function)
    return list(signature.parameters.values())[1 if is_class else 0 :]


def argument_names(function: Callable[..., Any]) -> list[str]:
    """The names by which arguments can be given to a function, a class or a partial."""
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    function = function.func if isinstance(function, functools.partial) else function
    return [parameter.name for parameter in parameters(function) if parameter.kind in by_name]


def function_name(function: object) -> str:
    """The name of a function or class; of a partial or another object that can be called, that of its class."""
    return getattr(function, "__name__", type(function).__name__)


def bind(
    option: str, evaluate: Callable[[Arguments], Any], names: Iterable[str], values: Mapping[str, tuple[float, ...]]
) -> Arguments:
    """The arguments with which a function can be traced: arrays, or if it branches on them numbers where it can be.

    Args:
      option: what the function is, for errors.
      evaluate: traces the function with such arguments.
      names: of the hyperparameters that it takes.
      values: of every hyperparameter in the sweep.

    Raises:
      InputError: for a function that cannot be traced with an array where a hyperparameter takes several values.
    """
    arrays = Arguments(tuple(names))
    several = tuple(name for name in arrays.arrays if len(values[name]) > 1)
    single = [name for name in arrays.arrays if name not in several]
    try:
        evaluate(arrays)
        return arrays
    except TypeError:  # as all of JAX' errors about arrays without values are
        pass
    if several:
        evaluate(Arguments().add(_numbers(arrays.arrays, values)))  # raises if the fault is another
    arguments = Arguments(several).add(_numbers(single, values))
    try:
        evaluate(arguments)
    except TypeError:
        if not several:
            raise
        given = " ".join(f"{value:g}" for value in values[several[0]])
        raise InvalidInputError(several[0], given, f"one value, because the {option} branches on it") from None
    return arguments


def _numbers(names: Iterable[str], values: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """The first value of each, whole ones as int, for numbers of layers or units."""
    firsts = ((name, values[name][0]) for name in names)
    return {name: int(value) if value == int(value) else value for name, value in firsts}
