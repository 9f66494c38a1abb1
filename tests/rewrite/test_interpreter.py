"""Functions as people write them, rewritten: the same values and gradients under every transformation of JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from helpers import plain
from helpers.compare import assert_close
from jax import lax

from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU

NUMBERS = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)


def block(x, kernel):
    return nnx.max_pool(nnx.relu(conv(x, kernel)), (2, 2), (1, 1), "SAME")


def scanned(x, kernels):
    return lax.scan(lambda x, kernel: (block(x, kernel), x.sum()), x, kernels)


def looped(x, kernels):
    return lax.fori_loop(0, 2, lambda n, x: block(x, kernels[n]), x)  # scan underneath, as its length is known


def branched(x, kernels):
    return lax.cond(x[0, 0, 0, 0] > 0, lambda: block(x, kernels[0]), lambda: conv(x, kernels[1]))


def remat(x, kernels):
    return jax.checkpoint(block)(jnp.tanh(jax.checkpoint(block)(x, kernels[0])), kernels[1])


def jitted(x, kernels):
    return jax.jit(lambda x: jax.jit(block)(x, kernels[1]))(block(x, kernels[0]))


def sorted_between(x, kernels):
    """Primitives that no rule knows, between two convolutions."""
    x = lax.sort(lax.erf(block(x, kernels[0])), dimension=1)
    return block(x, kernels[1]) + lax.cumsum(x, axis=2)


@jax.custom_vjp
def scaled_gradient(x, kernel):
    return conv(x, kernel)


scaled_gradient.defvjp(
    lambda x, kernel: (conv(x, kernel), (x, kernel)),
    lambda saved, d: jax.tree.map(lambda g: 3 * g, jax.vjp(conv, *saved)[1](d)),
)


@jax.custom_jvp
def with_tangents(x, kernel):
    return conv(x, kernel)


@with_tangents.defjvp
def _with_tangents_jvp(primals, tangents):
    return conv(*primals), 2 * conv(tangents[0], primals[1]) + conv(primals[0], tangents[1])


def custom_vjp(x, kernels):
    return scaled_gradient(block(x, kernels[0]), kernels[1])


def custom_jvp(x, kernels):
    return with_tangents(block(x, kernels[0]), kernels[1])


def gradient_inside(x, kernels):
    """A network that takes a gradient itself."""
    return block(x, kernels[0]) + jax.grad(lambda x: (conv(x, kernels[1]) ** 2).sum())(x)


def mapped(x, kernels):
    return jax.vmap(lambda kernel: block(x, kernel))(kernels)


FUNCTIONS = [scanned, looped, branched, remat, jitted, sorted_between, custom_vjp, custom_jvp, gradient_inside, mapped]
X, KERNELS = normal(0, 2, 6, 5, 4), normal(1, 2, 3, 3, 4, 4) / 3


def gradients(f):
    def objective(x, kernels):
        return sum(jnp.sum(jnp.sin(out)) for out in jax.tree.leaves(f(x, kernels)))

    return jax.value_and_grad(objective, argnums=(0, 1))


@pytest.mark.parametrize("f", FUNCTIONS)
def test_values_and_gradients_stay_the_same(f):
    ours = rewrite(f, CPU)
    for transform in (lambda f: f, gradients):
        assert_close(plain.jit(transform(ours))(X, KERNELS), plain.jit(transform(f))(X, KERNELS), 5e-6)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_no_convolution_and_pooling_is_left_out(f):
    """But for rules of differentiation that must stay, and for convolutions that a gradient inside has made."""
    text = str(jax.make_jaxpr(rewrite(f, CPU))(X, KERNELS))
    assert "reduce_window" not in text
    # Ours are in functions with a gradient of their own.
    assert text.count("convolve") or text.count("custom_vjp_call")


@pytest.mark.parametrize("f", [block, sorted_between])
def test_side_by_side_and_in_loops(f):
    """As trials are computed on CPU with several at a time: gradients under vmap, in a scan."""
    kernels = KERNELS if f is sorted_between else KERNELS[0]

    def steps(f):
        def step(carry, scale):
            return carry, jax.vmap(gradients(f), (None, 0))(scale * X, jnp.stack([kernels, 2 * kernels]))

        return lax.scan(step, 0, jnp.array([1.0, -0.5]))[1]

    assert_close(plain.jit(lambda: steps(rewrite(f, CPU)))(), plain.jit(lambda: steps(f))(), 5e-6)


def test_weak_types_and_literals_pass_through():
    def f(x):
        return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, block(c[1], KERNELS[0])), (0, x))

    actual, expected = plain.jit(rewrite(f, CPU))(X), plain.jit(f)(X)
    assert actual[0] == 3
    assert_close(actual[1], expected[1], 5e-6)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 8, (3, 3), strides=2, feature_group_count=4, rngs=rngs)
        self.up = nnx.ConvTranspose(8, 3, (2, 2), strides=2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.silu(self.conv1(x)), (3, 3), (1, 1), "SAME")
        return self.up(self.dropout(nnx.relu(self.norm(self.conv2(x)))))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.max_pool(linen.gelu(linen.Conv(4, (3, 3), kernel_dilation=2)(x)), (2, 2), (2, 2))
        return linen.ConvTranspose(2, (3, 3), strides=(2, 2))(linen.WeightNorm(linen.Conv(6, (2, 2)))(x))


def nnx_case():
    graphdef, params, rest = nnx.split(NNXNet(nnx.Rngs(0)), nnx.Param, ...)

    def apply(params, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        out = model(x)
        return out, nnx.state(model, nnx.BatchStat)

    return apply, params


def linen_case():
    variables = LinenNet().init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    return lambda variables, x: LinenNet().apply(variables, x, mutable=["batch_stats"]), variables


@pytest.mark.parametrize("make_case", [nnx_case, linen_case])
def test_whole_networks_equal_themselves(make_case):
    apply, params = make_case()
    x = normal(3, 4, 8, 8, 3)

    def objective(f, params):
        out, state = f(params, x)
        return jnp.sum(jnp.sin(out)), (out, state)

    expected, actual = (
        plain.jit(jax.value_and_grad(functools.partial(objective, f), has_aux=True))(params)
        for f in (apply, rewrite(apply, CPU))
    )
    assert_close(actual[0], expected[0], 5e-6)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    for a, b in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6 * scale)
