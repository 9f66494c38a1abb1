"""Optimizers of optax: what they take, and what some ask for beyond gradients."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from l2jax.arguments import Arguments, argument_names, bind, function_name, parameters
from l2jax.errors import InputError, InvalidInputError, reason
from l2jax.network.network import Params, abstract_scalars

OptimizerFn = Callable[..., optax.GradientTransformation]
"""A learning rate to an optimizer, such as `optax.adam`; see `make_optimizer` for what else it may take."""


class Optimizer(NamedTuple):
    """An optimizer as a function of a trial's hyperparameters.

    Attributes:
      function: makes it from a learning rate.
      arguments: what the function takes; the learning rate is always among it.
      looks_ahead: it is `optax.lookahead`, which has slow parameters besides those that are trained.
    """

    function: OptimizerFn
    arguments: Arguments
    looks_ahead: bool = False

    def __call__(self, hyperparameters: Mapping[str, Array]) -> optax.GradientTransformationExtraArgs:
        arguments = self.arguments.select(hyperparameters)
        optimizer = self.function(arguments.pop("learning_rate"), **arguments)
        return optax.with_extra_args_support(_with_slow_params(optimizer) if self.looks_ahead else optimizer)

    @property
    def decays_weights(self) -> bool:
        """Whether weight decay is its own affair."""
        return "weight_decay" in self.arguments.names


def make_optimizer(
    function: OptimizerFn,
    hyperparameters: Mapping[str, tuple[float, ...]],
    params: Params,
    *,
    steps_per_epoch: int,
    num_epochs: int,
) -> Optimizer:
    """The optimizer that a person's function makes.

    Its first argument is the learning rate. It gets the other hyperparameters that it names as arguments, and
    `steps_per_epoch` and `total_steps` if it names them.

    Args:
      hyperparameters: the values of every hyperparameter of the sweep.
      params: of the network, or their shapes.

    Raises:
      InputError: for a function that does not make an optimizer for these parameters, or that branches on a
        hyperparameter that takes several values.
    """
    if isinstance(function, tuple) or not callable(function):  # optax' optimizers are tuples
        given = "an optimizer that is made already" if isinstance(function, tuple) else function
        raise InvalidInputError("optimizer", given, "a function from a learning rate to one, such as optax.adam")
    others = argument_names(function)[1:]
    numbers = {"steps_per_epoch": steps_per_epoch, "total_steps": steps_per_epoch * num_epochs}
    steps = {name: number for name, number in numbers.items() if name in others}
    names = ["learning_rate", *(name for name in others if name in hyperparameters)]

    def init(arguments: Arguments) -> Any:
        optimizer, scalars = Optimizer(function, arguments.add(steps)), abstract_scalars(arguments)
        return jax.eval_shape(lambda scalars, params: optimizer(scalars).init(params), scalars, params)

    try:
        arguments = bind("optimizer", init, names, hyperparameters)
        with _silence():  # lookahead warns that it was not given slow parameters
            looks_ahead = bool(_find(init(arguments), optax.LookaheadState))
        optimizer = Optimizer(function, arguments.add(steps), looks_ahead)
        state = _check_update(optimizer, params)
    except InputError:
        raise
    except Exception as error:  # whatever a person's optimizer stumbles on
        accepted = f"an optimizer of optax for the network's parameters ({reason(error)})"
        raise InvalidInputError("optimizer", function_name(function), accepted) from error
    if optimizer.decays_weights or hyperparameters["weight_decay"] == (0.0,):
        return optimizer
    injected = _find(state, optax.InjectStatefulHyperparamsState)
    if _find(state, optax.ScaleByScheduleState) or any("learning_rate" in node.hyperparams_states for node in injected):
        accepted = "for a schedule, one that takes weight_decay as an argument, such as optax.adamw"
        raise InvalidInputError("optimizer", function_name(function), accepted)
    return optimizer


def default_weight_decay(function: OptimizerFn) -> float:
    """The weight decay that an optimizer has if it is given none; 0 for those that have no such argument."""
    defaults = {parameter.name: parameter.default for parameter in parameters(function)} if callable(function) else {}
    default = defaults.get("weight_decay", 0.0)
    return float(default) if isinstance(default, int | float) else 0.0


def update(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: Params,
    opt_state: optax.OptState,
    params: Params,
    *,
    value: Array,
    value_fn: Callable[[Params], Array],
) -> tuple[Params, optax.OptState]:
    """The updates of the parameters, and the optimizer's next state.

    Args:
      value: the objective of the batch, for optimizers such as `reduce_on_plateau` and `polyak_sgd`.
      value_fn: the objective as a function of the parameters, for line searches.
    """
    updates, opt_state = optimizer.update(grads, opt_state, params, value=value, grad=grads, value_fn=value_fn)
    return cast(Params, updates), opt_state


def evaluation_params(params: Params, opt_state: optax.OptState) -> Params:
    """The parameters to evaluate: those of a schedule-free or lookahead optimizer are not the ones that it trains."""
    for state in _find(opt_state, ScheduleFreeState | SlowParams):
        return state.params if isinstance(state, SlowParams) else schedule_free_eval_params(state, params)
    return params


class SlowParams(NamedTuple):
    """The state of `optax.lookahead` with its slow parameters (Zhang et al., 2019), which are those to evaluate."""

    params: Params
    state: optax.OptState


def _with_slow_params(lookahead: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Lookahead as an optimizer of the fast parameters alone."""

    def init(params: Params) -> SlowParams:
        return SlowParams(params, lookahead.init(optax.LookaheadParams(params, params)))

    def update(grads: Params, state: SlowParams, params: Params, **_: Any) -> tuple[Params, SlowParams]:
        both: Any = optax.LookaheadParams(params, state.params)
        updates, after = lookahead.update(grads, state.state, both)
        fast, slow = cast(optax.LookaheadParams, updates)
        return fast, SlowParams(cast(Params, optax.apply_updates(state.params, slow)), after)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _check_update(optimizer: Optimizer, params: Params) -> Any:
    """Checks that an optimizer can update these parameters, and returns the shapes of its state."""

    def init_and_update(scalars: Mapping[str, Array], params: Params) -> tuple[Any, Any]:
        made, value = optimizer(scalars), jnp.float32(0)
        before = made.init(params)
        _, after = update(made, params, before, params, value=value, value_fn=lambda params: optax.tree.norm(params))
        return before, after

    states = jax.eval_shape(init_and_update, abstract_scalars(optimizer.arguments), params)
    before, after = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in states)
    if before != after:
        raise ValueError("its state has another form after an update")
    return states[0]


def _find(opt_state: Any, kinds: Any) -> list[Any]:
    """The parts of an optimizer's state that are of these types."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in nodes if isinstance(node, kinds)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(level)
