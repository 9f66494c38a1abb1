"""The rules for pooling against XLA's own, values and gradients, over generated shapes with ties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU

generated = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
KINDS = [(-jnp.inf, lax.max), (0.0, lax.add)]


def value_and_grad(f, x):
    out, vjp = jax.vjp(f, x)
    return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype))


def with_ties(shape, dtype=np.float32):
    """Values from a few levels, so that many windows have ties."""
    return np.round(1.5 * np.random.default_rng(0).normal(size=shape)).astype(np.float32).astype(dtype)


def assert_equals_xla(f, x, tolerance=2e-6):
    expected = plain.jit(functools.partial(value_and_grad, f))(x)
    actual = plain.jit(functools.partial(value_and_grad, rewrite(f, CPU)))(x)
    assert_close(
        *(jax.tree.map(lambda a: np.asarray(a, np.float32), arrays) for arrays in (actual, expected)), tolerance
    )


def is_left(f, x):
    return "reduce_window" in str(jax.make_jaxpr(rewrite(f, CPU))(x))


@st.composite
def poolings(draw, rank):
    """The shape of an array (B, ..., C), and the arguments of `lax.reduce_window`."""
    size, dilation, strides = (draw(st.tuples(*[st.integers(1, most)] * rank)) for most in (3, 2, 3))
    # Padding alone has no maximum, and its gradient goes nowhere.
    pads = tuple(
        draw(st.tuples(*[st.integers(0, k - 1)] * 2)) if d == 1 else (0, 0) for k, d in zip(size, dilation, strict=True)
    )
    lengths = [draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(size, dilation, strict=True)]
    window = (1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)), None, (1, *dilation, 1)
    return (2, *lengths, draw(st.sampled_from([1, 3]))), window


@pytest.mark.parametrize("kind", KINDS, ids=["max", "sum"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling_equals_xla(rank, kind):
    @generated
    @given(poolings(rank))
    def check(case):
        shape, window = case

        def pool(x):
            return lax.reduce_window(x, *kind, *window)

        # XLA has no gradient of a maximum over a dilated window.
        has_gradient = kind[1] is lax.add or max(window[-1]) == 1
        x = with_ties(shape)
        assert not is_left(pool, x)
        if has_gradient:
            assert_equals_xla(pool, x)
        else:
            assert_close(plain.jit(rewrite(pool, CPU))(x), plain.jit(pool)(x))

    check()


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("pool", [nnx.max_pool, nnx.avg_pool, functools.partial(nnx.avg_pool, count_include_pad=False)])
def test_pooling_of_flax_equals_xla(pool, padding):
    assert_equals_xla(lambda x: pool(x, (3, 2), (2, 2), padding), with_ties((2, 7, 8, 3)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_equals_xla_to_its_rounding(dtype):
    f = functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
    assert_equals_xla(f, with_ties((2, 6, 6, 3), dtype))


def test_large_windows_integers_and_dilated_inputs_stay():
    x = with_ties((2, 9, 9, 3))
    assert is_left(lambda x: nnx.max_pool(x, (8, 8)), x)
    assert is_left(
        lambda x: lax.reduce_window(x, np.int32(0), lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"), x.astype(int)
    )
    assert is_left(lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", (1, 2, 2, 1)), x)


class Layer(nnx.Module):
    def __init__(self, rngs, *, use_bias=True, norm=False, padding="VALID", act=nnx.relu):
        self.conv = nnx.Conv(2, 5, (3, 3), use_bias=use_bias, padding=padding, rngs=rngs)
        self.norm = nnx.BatchNorm(5, use_running_average=True, rngs=rngs) if norm else lambda x: x
        self.act = act

    def __call__(self, x):
        return nnx.max_pool(self.act(self.norm(self.conv(x))), (2, 2), (2, 2))


def relu_used_twice(x):
    x = nnx.relu(x)
    return nnx.max_pool(x, (2, 2), (2, 2)) + x.sum()


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, set()),
        ({"padding": "SAME"}, set()),
        ({"use_bias": False}, set()),
        ({"norm": True}, {"add"}),
        ({"act": nnx.tanh}, {"add", "tanh"}),
        ({"act": lambda x: jnp.maximum(x, 0)}, {"add", "maximum"}),  # its gradient at 0 is another
    ],
)
def test_bias_and_relu_are_pooled_with(options, left):
    graphdef, state = nnx.split(Layer(nnx.Rngs(0), **options))
    state = jax.tree.map(lambda p: jnp.asarray(np.random.default_rng(1).normal(size=p.shape), jnp.float32) ** 2, state)

    def f(state, x):
        return nnx.merge(graphdef, state)(x)

    x = with_ties((2, 11, 13, 2))
    text = plain.jit(rewrite(f, CPU)).lower(state, x).compile().as_text() or ""
    assert {name for name in ("add", "maximum", "tanh") if f" {name}(" in text} == left

    def value_and_grads(f, state, x):
        return jax.value_and_grad(lambda state, x: jnp.sin(f(state, x)).sum(), argnums=(0, 1))(state, x)

    actual, expected = (plain.jit(functools.partial(value_and_grads, g))(state, x) for g in (rewrite(f, CPU), f))
    assert_close(actual, expected, 5e-6)


def test_relu_that_is_used_elsewhere_stays():
    x = with_ties((2, 6, 6, 3))
    assert "max" in str(jax.make_jaxpr(rewrite(relu_used_twice, CPU))(x))
    assert_equals_xla(relu_used_twice, x)


def test_pooling_has_second_derivatives():
    def gradient(f):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(f(x)) ** 2))

    def f(x):
        return nnx.max_pool(nnx.relu(x), (3, 3), (2, 2), "SAME")

    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    actual, expected = (plain.jit(lambda x, g=g: jax.vjp(gradient(g), x)[1](x))(x) for g in (rewrite(f, CPU), f))
    assert_close(actual, expected, 5e-6)
