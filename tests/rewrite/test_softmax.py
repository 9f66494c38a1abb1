"""Softmax is found wherever it is written out, with the values and gradients of XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.compare import as_in_sweeps, assert_close

from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def found(f, *args):
    """How often the operation is put in."""
    return str(jax.make_jaxpr(rewrite(f, CPU))(*args)).count("name=normalised_exp")


def value_and_grads(f, *args):
    out, vjp = jax.vjp(f, *args)
    return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))


def assert_same(f, *args):
    actual, expected = (as_in_sweeps(functools.partial(value_and_grads, g))(*args) for g in (rewrite(f, CPU), f))
    assert_close(actual, expected)


def shifted(x, axis=-1):
    e = jnp.exp(x - jax.lax.stop_gradient(x.max(axis, keepdims=True)))
    return e / e.sum(axis, keepdims=True)


def along_the_middle(x):
    return shifted(x, 1)


def unshifted(x):
    e = jnp.exp(2 * x)
    return e / e.sum((0, 2), keepdims=True)


def all_of_it(x):
    e = jnp.exp(x)
    return e / jnp.broadcast_to(e.sum((0, 1, 2), keepdims=True), e.shape)


def used_again(x):
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True) + jnp.log(e)


@pytest.mark.parametrize("f", [shifted, along_the_middle, unshifted, all_of_it, used_again])
def test_values_and_gradients_equal_xla(f):
    for shape in ((4, 5, 7), (1, 5, 7), (4, 1, 1), (1, 1, 1)):
        x = normal(0, *shape)
        assert found(f, x) == 1
        assert_same(f, x)


def test_masked_positions_stay_0():
    x = np.where(normal(1, 3, 6, 6) > 1, -np.inf, normal(0, 3, 6, 6))
    out = rewrite(shifted, CPU)(x)
    assert (out[np.isinf(x)] == 0).all()
    assert_same(shifted, x)


@pytest.mark.parametrize("mask", [None, np.tril(np.ones((1, 1, 6, 6), bool))])
def test_attention_of_flax(mask):
    graphdef, params = nnx.split(nnx.MultiHeadAttention(2, 8, use_bias=False, decode=False, rngs=nnx.Rngs(0)))

    def attention(params, x):
        return nnx.merge(graphdef, params)(x, mask=mask)

    assert found(attention, params, normal(0, 3, 6, 8)) == 1
    assert_same(attention, params, normal(0, 3, 6, 8))


def of_others(x):
    return jnp.exp(x) / jnp.exp(2 * x).sum(-1, keepdims=True)


def along_another_axis(x):
    e = jnp.exp(x)
    return e / e.sum(-1)[:, None, :]


def of_no_exponentials(x):
    return x / x.sum(-1, keepdims=True)


def over_a_number(x):
    return jnp.exp(x) / 3


@pytest.mark.parametrize("f", [of_others, along_another_axis, of_no_exponentials, over_a_number])
def test_other_quotients_stay_as_they_are(f):
    assert not found(f, normal(0, 4, 5, 5))
