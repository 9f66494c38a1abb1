"""Optimizers of optax, and what some ask for beyond gradients: numbers of steps, the value of the objective."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import cast

import jax
import optax
from jax import Array
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from l2jax.errors import InvalidInputError
from l2jax.network.network import Params

OptimizerFn = Callable[..., optax.GradientTransformation]
"""A learning rate to an optimizer, such as `optax.adam`; see `bind_steps` for what else it may take."""


def bind_steps(optimizer: OptimizerFn, *, steps_per_epoch: int, num_epochs: int) -> OptimizerFn:
    """Gives a function that makes an optimizer the arguments `steps_per_epoch` and `total_steps`, if it names them."""
    steps = {"steps_per_epoch": steps_per_epoch, "total_steps": steps_per_epoch * num_epochs}
    named = {name: steps[name] for name in steps if name in inspect.signature(optimizer).parameters}
    return functools.partial(optimizer, **named) if named else optimizer


def bind_learning_rate(optimizer: OptimizerFn, learning_rates: Sequence[float], params: Params) -> OptimizerFn:
    """Gives an optimizer the learning rate as a number if it cannot be computed with as an array.

    `optax.warmup_cosine_decay_schedule` is an example: it branches on its peak value.

    Raises:
      InputError: for such an optimizer and several learning rates.
    """
    try:
        jax.eval_shape(lambda rate, params: optimizer(rate).init(params), jax.ShapeDtypeStruct((), "float32"), params)
    except jax.errors.ConcretizationTypeError:
        if len(learning_rates) > 1:
            given = " ".join(f"{rate:g}" for rate in learning_rates)
            accepted = "one value, because this optimizer branches on it"
            raise InvalidInputError("learning_rate", given, accepted) from None
        return lambda _: optimizer(learning_rates[0])
    return optimizer


def update(
    optimizer: optax.GradientTransformation,
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
    transform = optax.with_extra_args_support(optimizer)
    updates, opt_state = transform.update(grads, opt_state, params, value=value, grad=grads, value_fn=value_fn)
    return cast(Params, updates), opt_state


def evaluation_params(params: Params, opt_state: optax.OptState) -> Params:
    """The parameters to evaluate: those of a schedule-free optimizer are not the ones that it trains."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScheduleFreeState))
    for state in states:
        if isinstance(state, ScheduleFreeState):
            return schedule_free_eval_params(state, params)
    return params
