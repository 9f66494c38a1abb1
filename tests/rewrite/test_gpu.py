"""The rules for GPUs against XLA's own operations, values and gradients. They are plain JAX, so a CPU can tell."""

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

from l2jax.network.cnn import CNN
from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.lowering import Lowering
from l2jax.rewrite.platforms import rules_for

GPU = rules_for("gpu")
LAYOUT = ("NHWC", "HWIO", "NHWC")
generated = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(dtype)


def value_and_grads(f, *args):
    out, vjp = jax.vjp(f, *args)
    return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype))


def primitives(f, *args):
    return {eqn.primitive.name for eqn in jax.make_jaxpr(f)(*args).eqns}


def assert_equals_xla(x, kernel, tolerance=3e-6, **options):
    xla = functools.partial(lax.conv_general_dilated, dimension_numbers=LAYOUT, **options)
    ours = rewrite(xla, GPU)
    assert "conv_general_dilated" not in primitives(ours, x, kernel)
    actual, expected = (plain.jit(functools.partial(value_and_grads, f))(x, kernel) for f in (ours, xla))
    assert jax.tree.map(lambda a: a.dtype, actual) == jax.tree.map(lambda a: a.dtype, expected)
    assert_close(*(jax.tree.map(lambda a: np.asarray(a, np.float32), a) for a in (actual, expected)), tolerance)


@st.composite
def convolutions(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pads = draw(st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(0, 3))] * 2))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    sizes = [draw(st.integers(max(1, k - sum(p)), 12)) + (min(p) < 0) for k, p in zip(kernel, pads, strict=True)]
    channels, features = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 4]))
    return (2, *sizes, channels), (*kernel, channels, features), {"window_strides": strides, "padding": pads}


@generated
@given(convolutions())
def test_convolutions_equal_xla(case):
    x, kernel, options = case
    assert_equals_xla(normal(0, *x), normal(1, *kernel), **options)


def test_bfloat16_networks_equal_xla_to_their_rounding():
    x, kernel = normal(0, 2, 8, 8, 3, dtype=jnp.bfloat16), normal(1, 3, 3, 3, 4, dtype=jnp.bfloat16)
    tolerance = 3 * float(jnp.finfo(jnp.bfloat16).eps)
    assert_equals_xla(x, kernel, tolerance, window_strides=(1, 1), padding="SAME")


@pytest.mark.parametrize(
    "options",
    [{"lhs_dilation": (2, 2)}, {"rhs_dilation": (2, 1)}, {"feature_group_count": 2}, {"batch_group_count": 2}],
)
def test_other_convolutions_stay_as_they_are(options):
    groups = options.get("feature_group_count", 1)
    options = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": LAYOUT} | options
    f = rewrite(functools.partial(lax.conv_general_dilated, **options), GPU)
    assert "conv_general_dilated" in primitives(f, normal(0, 2, 6, 6, 4), normal(1, 3, 3, 4 // groups, 4))


class Layer(nnx.Module):
    def __init__(self, rngs, channels, features=3, **options):
        self.conv = nnx.Conv(channels, features, (3, 3), rngs=rngs, **options)

    def __call__(self, x):
        return nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), (2, 2))


def function_of(model):
    graphdef, params = nnx.split(model)
    params = jax.tree.map(lambda p: normal(1, *p.shape) / 3, params)  # biases are 0 otherwise
    return lambda params, x: nnx.merge(graphdef, params)(x), params


@pytest.mark.parametrize("channels", [1, 2])  # by multiply-adds, and by a product
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooled_layers_equal_xla(channels, padding):
    f, params = function_of(Layer(nnx.Rngs(0), channels, padding=padding))
    x = normal(2, 4, 11, 13, channels)
    ours = rewrite(f, GPU)
    assert not {"reduce_window_max", "max"} & primitives(ours, params, x)
    assert ("fwd=_multiply_add_pool_fwd" in str(jax.make_jaxpr(ours)(params, x))) == (channels == 1)
    actual, expected = (plain.jit(functools.partial(value_and_grads, g))(params, x) for g in (ours, f))
    assert_close(actual, expected, 5e-6)


def test_ties_on_digits_go_where_xla_sends_them(digits):
    """In blank parts of an image all outputs of a pooling window are equal."""
    f, params = function_of(CNN((28, 28, 1), 10, rngs=nnx.Rngs(0)))
    x = digits.images[:16] / np.float32(255)

    def grads(g):
        return plain.jit(jax.grad(lambda params: g(params, x).var()))(params)

    assert_close(grads(rewrite(f, GPU)), grads(f), 5e-6)


def test_trials_side_by_side_equal_each_alone():
    f, _ = function_of(CNN((12, 12, 1), 10, rngs=nnx.Rngs(0)))
    per_trial = [function_of(CNN((12, 12, 1), 10, rngs=nnx.Rngs(seed)))[1] for seed in range(3)]
    x, ours = normal(2, 4, 12, 12, 1), rewrite(f, GPU)
    grad = plain.jit(jax.grad(lambda params, x: jnp.sin(ours(params, x)).sum()))
    together = jax.vmap(grad, (0, None))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_trial), x)
    for n, params in enumerate(per_trial):
        assert_close(jax.tree.map(lambda leaf: leaf[n], together), grad(params, x))  # noqa: B023


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_take_inputs_of_the_given_type(dtype):
    f, params = function_of(Layer(nnx.Rngs(0), 2, padding="VALID"))
    x = normal(2, 4, 11, 13, 2)
    out = rewrite(f, rules_for("gpu", Lowering(dtype)))(params, x)
    assert out.dtype == jnp.float32
    rounded = f(*jax.tree.map(lambda a: jnp.asarray(a, dtype).astype(jnp.float32), (params, x)))
    error = np.abs(out - rounded).max() / np.abs(rounded).max()
    assert error < (2e-6 if dtype == jnp.float32 else 2 * float(jnp.finfo(dtype).eps))


def test_a_person_s_precision_is_kept():
    f, params = function_of(Layer(nnx.Rngs(0), 2, padding="VALID", precision="highest"))
    assert "HIGHEST" in str(jax.make_jaxpr(rewrite(f, GPU))(params, normal(2, 4, 11, 13, 2)))
