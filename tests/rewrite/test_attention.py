"""The pattern of attention against XLA's own products and softmax: values and gradients, in the forms of libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from helpers import plain
from helpers.compare import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2jax.rewrite.attention import MOST_WEIGHTS
from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU

generated = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def written_out(q, k, v, *, first="bthd,bshd->bhts", second="bhts,bshe->bthe", scale=0.25):
    return jnp.einsum(second, jax.nn.softmax(scale * jnp.einsum(first, q, k)), v)


def value_and_grads(f):
    def both(*args):
        out, vjp = jax.vjp(f, *args)
        return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    return both


def is_attention(f, *args):
    jaxpr = str(jax.make_jaxpr(rewrite(f, CPU))(*args))
    return "name=attend" in jaxpr


def assert_same(f, *args, tolerance=3e-6):
    expected, actual = (plain.jit(value_and_grads(g))(*args) for g in (f, rewrite(f, CPU)))
    assert_close(actual, expected, tolerance)


@generated
@given(*(st.integers(1, n) for n in (3, 40, 40, 3, 20, 20)))
def test_attention_equals_xla(batch, queries, keys, heads, width, value_width):
    q, k = normal(0, batch, queries, heads, width), normal(1, batch, keys, heads, width)
    v = normal(2, batch, keys, heads, value_width)
    assert is_attention(written_out, q, k, v)
    assert_same(written_out, q, k, v)


@pytest.mark.parametrize(
    "first, second",
    [
        ("bthd,bshd->bhts", "bhts,bshe->bthe"),
        ("bthd,bshd->bhts", "bhts,bshe->ehtb"),
        ("bshd,bthd->bhts", "bhts,bshe->bhte"),
        ("dtbh,shbd->hbts", "hbts,hbse->tbhe"),
        ("bhtxd,bhsd->bhtxs", "bhtxs,bhse->bhtxe"),
        ("bhtdx,bxhsd->bhts", "bhts,bhse->bhte"),
        ("td,sd->ts", "ts,se->te"),
    ],
)
def test_axes_may_come_in_any_order(first, second):
    sizes = {"b": 2, "h": 3, "t": 5, "s": 7, "d": 4, "e": 6, "x": 2}
    names = *first.split("->")[0].split(","), *second.split("->")[0].split(",")
    weights = first.split("->")[1]
    names = [name for name in names if name != weights]
    arrays = [normal(n, *(sizes[axis] for axis in name)) for n, name in enumerate(names)]
    f = functools.partial(written_out, first=first, second=second)
    assert is_attention(f, *arrays)
    assert_same(f, *arrays)


def masked(q, k, v):
    scores = jnp.where(jnp.tri(6, dtype=bool)[None, None], jnp.einsum("bthd,bshd->bhts", q, k), -1e9)
    return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(scores), v)


def over_queries(q, k, v):
    return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k), axis=2), v)


def over_both(q, k, v):
    return jnp.einsum("bhts,bshe->bhe", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k), axis=(2, 3)), v)


def over_heads_too(q, k, v):
    return jnp.einsum("bhts,bshe->bte", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v)


def of_each_query(q, k, v):
    """Values that differ by query."""
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
    return jnp.einsum("bhts,btshe->bthe", weights, v[:, :, None] * q[:, None, :, :, :1])


@pytest.mark.parametrize("f", [masked, over_queries, over_both, over_heads_too, of_each_query])
def test_what_is_more_or_less_than_attention_stays(f):
    arrays = [normal(n, 2, 6, 3, 4) for n in range(3)]
    assert not is_attention(f, *arrays)
    assert_same(f, *arrays)


def test_long_sequences_stay():
    q, k = normal(0, 1, MOST_WEIGHTS // 64, 1, 2), normal(1, 1, 64, 1, 2)
    assert is_attention(written_out, q, k, k)
    assert not is_attention(written_out, normal(0, 1, MOST_WEIGHTS // 64 + 1, 1, 2), k, k)


@pytest.mark.parametrize("library", ["nnx", "linen", "jax"])
def test_attention_of_libraries_is_recognised(library):
    x = normal(0, 2, 9, 12)
    if library == "nnx":
        f = nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0))
    elif library == "linen":
        layer = linen.MultiHeadDotProductAttention(3)
        f = functools.partial(layer.apply, layer.init(jax.random.key(0), x))
    else:
        f = lambda x: jax.nn.dot_product_attention(*[x.reshape(2, 9, 3, 4)] * 3)  # noqa: E731
    assert is_attention(f, x)
    assert_same(f, x)


def test_trials_side_by_side_equal_xla():
    arrays = [normal(n, 3, 2, 6, 3, 4) for n in range(3)]
    expected, actual = (
        plain.jit(jax.vmap(value_and_grads(f)))(*arrays) for f in (written_out, rewrite(written_out, CPU))
    )
    assert_close(actual, expected, 3e-6)


def test_attention_has_second_derivatives():
    arrays = [normal(n, 2, 5, 3, 4) for n in range(3)]

    def hessian_times(f):
        def gradients(*arrays):
            return jax.grad(lambda *arrays: jnp.sum(jnp.tanh(f(*arrays)) ** 2), argnums=(0, 1, 2))(*arrays)

        return plain.jit(lambda *arrays: jax.vjp(gradients, *arrays)[1](tuple(map(jnp.cos, arrays))))(*arrays)

    assert_close(hessian_times(rewrite(written_out, CPU)), hessian_times(written_out), 1e-5)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_spreads_as_in_xla(value):
    arrays = [normal(n, 2, 5, 3, 4) for n in range(3)]
    arrays[1][1, 2, 0, 3] = value
    expected, actual = (plain.jit(f)(*arrays) for f in (written_out, rewrite(written_out, CPU)))
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
