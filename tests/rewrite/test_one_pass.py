"""Steps in one pass over memory against the same steps as XLA computes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import plain
from helpers.compare import assert_close

from l2jax.rewrite.groups import LEAST, MOST_SUMMED
from l2jax.rewrite.one_pass import in_one_pass

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


def start(optimizer, rows=100, columns=64):
    params = {"kernel": normal(0, rows, columns), "bias": normal(1, columns)}
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
    assert len(arrays) == 3 and len(call.outvars) == 3  # kernel and two moments
    assert len(call.params["input_output_aliases"]) == 3
    text = plain.jit(in_one_pass(step), donate_argnums=0).lower(carry, normal(0, 7, 100)).compile().as_text()
    assert not [line for line in text.splitlines() if "f32[100,64]" in line and " copy(" in line]


@pytest.mark.parametrize("rows, columns", [(128, 33), (100, 64), (101, 47), (60, 70), (600, 7)])
@pytest.mark.parametrize("batch", [2, 32, MOST_SUMMED - 1, MOST_SUMMED + 1])
def test_gradients_of_dense_layers_are_made_on_the_way(rows, columns, batch):
    step = functools.partial(step_of, optax.adam(0.01))
    ours = expected = start(optax.adam(0.01), rows, columns)
    x = normal(0, batch, rows) / np.float32(rows)
    (call,) = calls(jax.make_jaxpr(in_one_pass(step))(ours, x))
    arrays = [var for var in call.invars if var.aval.shape == (rows, columns)]
    assert len(arrays) == (3 if batch < MOST_SUMMED and columns > 31 else 4)
    for n in range(1, 4):
        ours, expected = (plain.jit(f)(c, n * x) for f, c in ((in_one_pass(step), ours), (step, expected)))
    assert_close(ours, expected, 2e-5)


def test_gradients_that_are_looked_at_stay():
    """By two readers, and as a result; a product the other way round; and one over two axes."""

    def step(carry, x):
        kernel, seen, other, _ = carry
        grad, turned = x.T @ jnp.sin(x), jnp.cos(x).T @ x
        double = jax.lax.dot_general(x.reshape(5, 4, 80), x.reshape(5, 4, 80), (((0, 1), (0, 1)), ((), ())))
        return kernel - 0.1 * grad, grad + seen, other - 0.1 * turned, 2 * double + kernel

    carry, x = [normal(n, 80, 80) for n in range(4)], normal(4, 20, 80)
    assert_close(plain.jit(in_one_pass(step))(carry, x), tuple(plain.jit(step)(carry, x)), 1e-6)


def with_objective(optimizer, carry, x):
    """A step that also returns its objective, to which each kernel's sum of squares belongs."""

    def objective(params):
        return (jnp.tanh(x @ params["kernel"] + params["bias"][None]) ** 2).mean() + (params["kernel"] ** 2).sum()

    params, opt_state, _ = carry
    value, grads = jax.value_and_grad(objective)(params)
    updates, opt_state = optax.with_extra_args_support(optimizer).update(grads, opt_state, params, value=value)
    return optax.apply_updates(params, updates), opt_state, value


@pytest.mark.parametrize("name, is_on_the_way", [("adam", True), ("clipped", True), ("polyak", False)])
def test_sums_are_made_on_the_way_unless_the_update_waits_for_them(name, is_on_the_way):
    optimizer = optax.polyak_sgd() if name == "polyak" else OPTIMIZERS[name]
    step = functools.partial(with_objective, optimizer)
    ours = expected = (*start(optimizer), jnp.float32(0))
    jaxpr = jax.make_jaxpr(in_one_pass(step))(ours, normal(0, 7, 100))
    squares = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "integer_pow" and eqn.outvars[0].aval.size == 6400]
    assert bool(squares) != is_on_the_way
    for n in range(3):
        ours, expected = (plain.jit(f)(c, normal(n, 7, 100)) for f, c in ((in_one_pass(step), ours), (step, expected)))
    assert_close(ours, expected, 2e-5)


@pytest.mark.parametrize("rows", [100, 7919])  # with the product and without
def test_sums_are_exact_to_rounding(rows):
    def step(carry, x):
        kernel, _ = carry
        return kernel - x.T @ x[:, :64], kernel.sum(), (kernel**2).sum()

    kernel, x = 1 + normal(0, rows, 64), normal(1, 7, rows)
    _, *sums = plain.jit(in_one_pass(step))((kernel, 0), x)
    exact = kernel.astype(np.float64)
    np.testing.assert_allclose(sums, [exact.sum(), (exact**2).sum()], rtol=2e-7)


def test_a_sum_that_is_infinite_stays_so():
    def step(carry):
        kernel, _ = carry
        return 0.5 * kernel + 1, (kernel**2).sum()

    kernel = normal(0, LEAST)
    kernel[[3, 1000]] = 3e38, 2e38
    _, total = plain.jit(in_one_pass(step))((kernel, jnp.float32(0)))
    assert total == np.inf


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


def test_signs():
    def step(carry):
        return jnp.sign(carry) * 2

    x = normal(0, LEAST)
    x[:4] = 0, -0.0, np.nan, -np.inf
    np.testing.assert_array_equal(plain.jit(in_one_pass(step))(x), 2 * np.sign(x))


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
