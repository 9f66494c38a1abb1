"""Convolution, bias, ReLU and pooling are found, and only they, with values and gradients as XLA's own."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from helpers import plain
from helpers.compare import as_in_sweeps, assert_close

from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.lowering import Lowering
from l2jax.rewrite.platforms import CPU, rules_for

PATTERN_ALONE = rules_for("gpu")._replace(primitives={})


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Layer(nnx.Module):
    def __init__(self, rngs, channels=2, features=3, *, act=nnx.relu, pool=nnx.max_pool, **options):
        self.conv = nnx.Conv(channels, features, (3, 3), **{"padding": "VALID", "rngs": rngs} | options)
        self.act, self.pool = act, pool

    def __call__(self, x):
        return self.pool(self.act(self.conv(x)), (2, 2), (2, 2))


class Twice(nnx.Module):
    """Two blocks, of which the second drops a row and a column of the first one's output."""

    def __init__(self, rngs):
        self.layers = nnx.List([Layer(rngs), Layer(rngs, 3, 4)])

    def __call__(self, x):
        return self.layers[1](self.layers[0](x))


class ReluUsedTwice(Layer):
    def __call__(self, x):
        x = nnx.relu(self.conv(x))
        return nnx.max_pool(x, (2, 2), (2, 2)) + x.sum()


class LinenLayer(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(3, (3, 3), padding="VALID")(x))
        return linen.max_pool(x, (2, 2), (2, 2))


def nnx_function(model):
    graphdef, params = nnx.split(model)
    return lambda params, x: nnx.merge(graphdef, params)(x), params


def value_and_grads(f, params, x):
    return jax.value_and_grad(lambda params, x: jnp.sum(jnp.sin(f(params, x))), argnums=(0, 1))(params, x)


def count_fused(f, params, x):
    jaxpr = str(jax.make_jaxpr(rewrite(f, PATTERN_ALONE))(params, x))
    return len(re.findall("name=(pooled_blocks|multiply_add_pool)", jaxpr))


@pytest.mark.parametrize(("model", "fused"), [(Layer, 1), (Twice, 3), (functools.partial(Layer, features=40), 1)])
def test_blocks_are_fused_and_equal_xla(model, fused):
    f, params = nnx_function(model(nnx.Rngs(0)))
    params = jax.tree.map(lambda p: normal(1, *p.shape) / 3, params)  # biases are 0 otherwise
    x = normal(2, 4, 11, 13, 2)
    # The first of two blocks is evaluated as a whole, too, but nothing uses it.
    assert count_fused(f, params, x) == fused
    actual = as_in_sweeps(functools.partial(value_and_grads, rewrite(f, PATTERN_ALONE)))(params, x)
    assert_close(actual, plain.jit(functools.partial(value_and_grads, f))(params, x), 5e-6)


@pytest.mark.parametrize(("padding", "strides"), [("VALID", 1), ("SAME", 1), ([(2, 1), (0, 1)], 2)])
@pytest.mark.parametrize("features", [3, 20])
def test_networks_whose_pooling_drops_rows_equal_xla(padding, strides, features):
    class Dropping(nnx.Module):
        def __init__(self, rngs):
            self.first = Layer(rngs, 2, features, padding=padding, strides=strides)
            self.second = Layer(rngs, features, 17)

        def __call__(self, x):
            return self.second(self.first(x))

    f, params = nnx_function(Dropping(nnx.Rngs(0)))
    params, x = jax.tree.map(lambda p: normal(1, *p.shape) / 3, params), normal(2, 3, 21, 23, 2)
    actual, expected = (plain.jit(functools.partial(value_and_grads, g))(params, x) for g in (rewrite(f, CPU), f))
    assert_close(actual, expected, 5e-6)


def test_what_pooling_drops_is_not_computed():
    """Of 4x5 pooled images, the second convolution needs 4x4, so the first one makes 8x8 of its 9x11 outputs."""
    f, params = nnx_function(Twice(nnx.Rngs(0)))
    compiled = plain.jit(rewrite(f, CPU)).lower(params, normal(2, 4, 11, 13, 2)).compile().as_text() or ""
    assert "f32[4,8,8,3]" in compiled
    assert "f32[4,9,11,3]" not in compiled


def test_blocks_of_linen_are_fused_and_equal_xla():
    x = normal(2, 4, 11, 13, 2)
    params = jax.tree.map(lambda p: normal(1, *p.shape) / 3, LinenLayer().init(jax.random.key(0), x))
    assert count_fused(LinenLayer().apply, params, x) == 1
    actual = as_in_sweeps(functools.partial(value_and_grads, rewrite(LinenLayer().apply, PATTERN_ALONE)))(params, x)
    assert_close(actual, plain.jit(functools.partial(value_and_grads, LinenLayer().apply))(params, x), 5e-6)


@pytest.mark.parametrize(
    "model",
    [
        ReluUsedTwice,
        functools.partial(Layer, act=nnx.tanh),
        functools.partial(Layer, act=lambda x: jnp.maximum(x, 0)),
        functools.partial(Layer, pool=nnx.avg_pool),
        functools.partial(Layer, use_bias=False),
        functools.partial(Layer, strides=2),
        functools.partial(Layer, dtype=jnp.bfloat16),
    ],
)
def test_others_are_not_fused(model):
    f, params = nnx_function(model(nnx.Rngs(0)))
    assert count_fused(f, params, normal(2, 4, 11, 13, 2)) == 0


@pytest.mark.parametrize(("model", "shape"), [(functools.partial(nnx.Linear, 5, 4), (3, 5)), (Layer, (3, 8, 8, 2))])
def test_bfloat16_rounds_the_inputs_of_products(model, shape):
    """Of dense layers and of convolutions, as if they were rounded before; sums are those of float32."""
    f, params = nnx_function(model(rngs=nnx.Rngs(0)))
    x = normal(0, *shape)
    rules = rules_for("cpu", Lowering(jnp.bfloat16))
    rounded = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16).astype(jnp.float32), (params, x))
    np.testing.assert_allclose(rewrite(f, rules)(params, x), f(*rounded), rtol=1e-5, atol=1e-6)
    assert rewrite(f, rules)(params, x).dtype == jnp.float32


def test_on_tpus_networks_stay_as_they_are():
    f, params = nnx_function(Twice(nnx.Rngs(0)))
    x = normal(2, 3, 11, 11, 2)
    assert str(jax.make_jaxpr(rewrite(f, rules_for("tpu")))(params, x)) == str(jax.make_jaxpr(f)(params, x))


def test_on_tpus_convolutions_take_rounded_inputs():
    f, params = nnx_function(Layer(nnx.Rngs(0)))
    x = normal(2, 3, 11, 11, 2)
    ours = rewrite(f, rules_for("tpu", Lowering(jnp.bfloat16)))
    rounded = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16).astype(jnp.float32), (params, x))
    tolerance = 2 * float(jnp.finfo(jnp.bfloat16).eps)
    assert_close(plain.jit(ours)(params, x), plain.jit(f)(*rounded), tolerance)
    grads = [plain.jit(jax.grad(lambda params, x, g=g: jnp.sin(g(params, x)).sum())) for g in (ours, f)]
    assert_close(grads[0](params, x), grads[1](*rounded), 4 * tolerance)
