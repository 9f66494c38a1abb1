"""The rule for products with a kernel against XLA's own, values and gradients, over generated shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain
from helpers.compare import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from l2jax.native.correlate import WIDE
from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU
from l2jax.rewrite.product import FEW_ROWS, LEAST_FEATURES

generated = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def normal(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def linear(x, kernel):
    """What Flax's `Linear` computes."""
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def value_and_grads(f):
    def both(x, kernel):
        out, vjp = jax.vjp(f, x, kernel)
        return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    return both


def is_rewritten(f, *args):
    return "custom_vjp" in str(jax.make_jaxpr(f)(*args))


@generated
@given(st.integers(1, FEW_ROWS), st.integers(1, 300), st.integers(LEAST_FEATURES, 80) | st.integers(WIDE, WIDE + 30))
def test_products_of_few_rows_equal_xla(rows, channels, features):
    x, kernel = normal(0, (rows, channels)), normal(1, (channels, features))
    ours = rewrite(linear, CPU)
    assert is_rewritten(ours, x, kernel)
    expected, actual = (plain.jit(value_and_grads(f))(x, kernel) for f in (linear, ours))
    assert_close(actual, expected, 3e-6)


def test_products_of_many_rows_or_few_features_stay():
    ours = rewrite(linear, CPU)
    assert not is_rewritten(ours, normal(0, (FEW_ROWS + 1, 300)), normal(1, (300, 100)))
    assert not is_rewritten(ours, normal(0, (32, 300)), normal(1, (300, LEAST_FEATURES - 1)))


@generated
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_products_equal_xla(rows, channels, features):
    x, kernel = normal(0, (*rows, channels)), normal(1, (channels, features))
    ours = rewrite(linear, CPU)
    assert is_rewritten(ours, x, kernel)
    expected, actual = (plain.jit(value_and_grads(f))(x, kernel) for f in (linear, ours))
    assert_close(actual, expected, 3e-6)


def test_products_over_two_axes_equal_xla():
    """As at the end of attention: heads and their width are summed over."""

    def product(x, kernel):
        return lax.dot_general(x, kernel, (((2, 1), (1, 0)), ((), ())))

    x, kernel = normal(0, (4, 3, 5)), normal(1, (3, 5, 2, 6))
    assert is_rewritten(rewrite(product, CPU), x, kernel)
    expected, actual = (plain.jit(value_and_grads(f))(x, kernel) for f in (product, rewrite(product, CPU)))
    assert_close(actual, expected, 3e-6)


def test_products_of_many_trials_equal_xla():
    x, kernel = normal(0, (3, 4, 5, 6)), normal(1, (3, 6, 7))
    expected, actual = (plain.jit(jax.vmap(value_and_grads(f)))(x, kernel) for f in (linear, rewrite(linear, CPU)))
    assert_close(actual, expected, 3e-6)


@pytest.mark.parametrize("rows", [(2, 3), (6,)])
def test_products_have_second_derivatives(rows):
    x, kernel = normal(0, (*rows, 4)), normal(1, (4, 40))

    def hessian_times(f):
        def gradient(kernel):
            return jax.grad(lambda kernel: jnp.sum(jnp.tanh(f(x, kernel)) ** 2))(kernel)

        return plain.jit(lambda kernel: jax.vjp(gradient, kernel)[1](jnp.ones_like(kernel)))

    assert_close(hessian_times(rewrite(linear, CPU))(kernel), hessian_times(linear)(kernel), 3e-6)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_infinities_reach_what_they_reach_in_xla(value):
    x, kernel = normal(0, (2, 3, 4)), normal(1, (4, 5))
    x[1, 2, 3] = value
    expected, actual = (plain.jit(value_and_grads(f))(x, kernel) for f in (linear, rewrite(linear, CPU)))
    for ours, xla in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(xla))


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((4, 6), (6, 3), {}),
        ((2, 4, 6), (6, 3), {"precision": lax.DotAlgorithmPreset.F32_F32_F32}),
        ((2, 4, 6), (6, 3), {"preferred_element_type": jnp.bfloat16}),
    ],
)
def test_other_products_stay_as_they_are(x, kernel, options):
    def product(x, kernel):
        return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), **options)

    assert not is_rewritten(rewrite(product, CPU), normal(0, x), normal(1, kernel))
