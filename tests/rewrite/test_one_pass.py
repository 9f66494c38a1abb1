"""Steps in one pass over memory against the same steps as XLA computes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import plain
from helpers.compare import assert_close

from l2jax.rewrite.one_pass import LEAST, in_one_pass

OPTIMIZERS = {
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "nesterov": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop(0.01, momentum=0.5),
    "adamax": optax.adamax(0.01),
    "lion": optax.lion(0.01),
    "by layer": optax.lamb(0.01),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)),
    "clipped twice": optax.chain(optax.clip(0.01), optax.adam(0.01), optax.clip_by_block_rms(0.001)),
    "schedule": optax.adam(optax.exponential_decay(0.1, 3, 0.9)),
}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def step_of(optimizer, carry, x):
    def objective(params):
        out = jnp.tanh(x @ params["kernel"] + params["bias"][None])
        return (out**2).mean() + 0.01 * (params["kernel"] ** 2).sum()

    params, opt_state = carry
    updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def start(optimizer, rows=100):
    params = {"kernel": normal(0, rows, 64), "bias": normal(1, 64)}
    return params, optimizer.init(params)


def calls(jaxpr):
    return [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "ffi_call"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_xla(name):
    step = functools.partial(step_of, OPTIMIZERS[name])
    ours = expected = start(OPTIMIZERS[name])
    for n in range(3):
        ours, expected = (plain.jit(f)(c, normal(n, 7, 100)) for f, c in ((in_one_pass(step), ours), (step, expected)))
    assert_close(ours, expected, 2e-5)


def test_adam_reads_and_writes_each_array_once():
    step = functools.partial(step_of, optax.adam(0.01))
    carry = start(optax.adam(0.01))
    (call,) = calls(jax.make_jaxpr(in_one_pass(step))(carry, normal(0, 7, 100)))
    arrays = [var for var in call.invars if var.aval.shape == (100, 64)]
    assert len(arrays) == 4 and len(call.outvars) == 3  # kernel, gradient, two moments
    assert len(call.params["input_output_aliases"]) == 3
    text = plain.jit(in_one_pass(step), donate_argnums=0).lower(carry, normal(0, 7, 100)).compile().as_text()
    assert not [line for line in text.splitlines() if "f32[100,64]" in line and " copy(" in line]


def test_trials_side_by_side_equal_each_alone():
    step = in_one_pass(functools.partial(step_of, optax.adam(0.01)))
    carries = [start(optax.adam(0.01)) for _ in range(3)]
    xs = normal(0, 3, 7, 100)
    together = plain.jit(jax.vmap(step))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries), xs)
    for n, carry in enumerate(carries):
        alone = plain.jit(step)(carry, xs[n])
        assert_close(jax.tree.map(lambda leaf: leaf[n], together), alone)  # noqa: B023


def test_small_arrays_and_other_types_stay_as_they_are():
    def step(carry):
        return jax.tree.map(lambda x: 2 * x + 1, carry)

    carry = jnp.ones(LEAST - 1), jnp.ones(LEAST, jnp.bfloat16), jnp.ones(LEAST, int)
    assert not calls(jax.make_jaxpr(in_one_pass(step))(carry))
    assert len(calls(jax.make_jaxpr(in_one_pass(step))((jnp.ones(LEAST),)))) == 1


def test_other_results_are_what_they_are():
    """A constant, an input as it is, and an intermediate value that is a result, and looked at, too."""
    seen = []

    def step(carry):
        x, _, small, _ = carry
        y = 2 * x + 1
        jax.debug.callback(seen.append, y)
        return y * y, 3.0, small, y

    carry = jnp.asarray(normal(0, LEAST)), 1.0, jnp.ones(4), jnp.zeros(LEAST)
    assert_close(plain.jit(in_one_pass(step))(carry), plain.jit(step)(carry), 1e-6)
    jax.effects_barrier()
    assert_close(seen[0], seen[1])


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, LEAST + 17])
def test_no_number_is_left_out(size):
    def step(carry):
        x, y = carry
        return jnp.maximum(x, -y) / 3, jnp.sqrt(jnp.abs(x)) - y**3

    carry = jnp.asarray(normal(0, size)), jnp.asarray(normal(1, size))
    assert_close(plain.jit(in_one_pass(step))(carry), plain.jit(step)(carry), 1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_reach_what_they_reach_in_xla(value):
    step = functools.partial(step_of, optax.chain(optax.clip(0.01), optax.adam(0.01)))
    carry = start(optax.chain(optax.clip(0.01), optax.adam(0.01)))
    x = normal(0, 7, 100)
    x[3, 5] = value
    ours, expected = (plain.jit(f)(carry, x) for f in (in_one_pass(step), step))
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(theirs))


@pytest.mark.parametrize("divisor", [3.0, -1e-30, 2e38, np.inf, -np.inf, 0.0, np.nan])
def test_division_by_a_number_is_division(divisor):
    def step(carry, divisor):
        return (carry + 0) / divisor

    x = np.concatenate([normal(0, LEAST), 1e37 * normal(1, LEAST), [0, np.inf]]).astype(np.float32)
    actual = plain.jit(in_one_pass(step))(jnp.asarray(x), np.float32(divisor))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(actual, x / np.float32(divisor), rtol=3e-7, atol=1e-37)
