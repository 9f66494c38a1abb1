"""Native code as it is written for each kind of CPU, against XLA's own operations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import assert_close

from l2jax.native import call, correlate, elementwise, gather, pool, softmax, tiles, winograd
from l2jax.native.call import Cpu
from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.one_pass import in_one_pass
from l2jax.rewrite.platforms import CPU
from l2jax.rewrite.softmax import normalised_exp

CPUS = {"AVX-512": Cpu(16, 32), "AVX2": Cpu(8, 16), "SSE": Cpu(4, 16), "NEON": Cpu(4, 32)}


@pytest.fixture(params=CPUS)
def _cpu(request, monkeypatch):
    for module in (correlate, elementwise, gather, pool, softmax, tiles, winograd):
        monkeypatch.setattr(module, "cpu", lambda: CPUS[request.param])
    call._registered.cache_clear()
    yield
    call._registered.cache_clear()


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value_and_grads(f, *args):
    out, vjp = jax.vjp(f, *args)
    return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))


def assert_same(f, *args):
    actual, expected = (plain.jit(functools.partial(value_and_grads, g))(*args) for g in (rewrite(f, CPU), f))
    assert_close(actual, expected, 5e-6)


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize(
    ("size", "channels", "features", "strides"),
    [
        ((9, 37), 3, 16, (1, 1)),
        ((5, 8), 40, 70, (1, 1)),
        ((7, 9), 16, 32, (2, 2)),
        ((6, 3), 33, 6, (1, 1)),
        ((8, 70), 1, 48, (1, 2)),
        ((9, 12), 17, 37, (1, 1)),
    ],
)
def test_convolutions(size, channels, features, strides):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert_same(convolve, normal(0, 3, *size, channels), normal(1, 3, 3, channels, features))


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("channels", [3, 40])
def test_depthwise_convolutions(channels):
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=numbers, feature_group_count=channels
        )

    assert_same(convolve, normal(0, 3, 9, 37, channels), normal(1, 3, 3, 1, channels))


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("shape", [(5, 13, 40), (7, 70)])
def test_products(shape):
    assert_same(lambda x, kernel: jnp.tensordot(x, kernel, 1), normal(0, *shape), normal(1, shape[-1], 39))


@pytest.mark.usefixtures("_cpu")
def test_attention():
    def attend(q, k):
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return jnp.einsum("bhts,bshe->bthe", weights, k + 1)

    assert_same(attend, normal(0, 2, 11, 3, 7), normal(1, 2, 19, 3, 7))


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("channels", [6, 16, 37])
def test_pooling(channels):
    assert_same(lambda x: nnx.max_pool(nnx.relu(x), (3, 2), (2, 2), "SAME"), normal(0, 2, 9, 7, channels))


@pytest.mark.usefixtures("_cpu")
@pytest.mark.parametrize("length", [1, 7, 16, 39])
def test_softmax(length):
    assert_same(jax.nn.softmax, normal(0, 3, 5, length))


@pytest.mark.usefixtures("_cpu")
def test_elementwise():
    def step(carry):
        return jnp.sqrt(jnp.abs(carry)) / 3 - carry**3

    x = jnp.asarray(normal(0, 4099))
    assert_close(plain.jit(in_one_pass(step))(x), plain.jit(step)(x), 1e-6)


@pytest.mark.usefixtures("_cpu")
def test_elementwise_with_a_product_and_a_sum():
    def step(carry, x):
        kernel, _ = carry
        return kernel - 0.1 * x.T @ jnp.sin(x[:, :43]), (kernel**2).sum()

    carry, x = (normal(0, 100, 43), jnp.float32(0)), normal(1, 7, 100)
    assert_close(plain.jit(in_one_pass(step))(carry, x), plain.jit(step)(carry, x), 1e-6)


def test_exponentials_are_exact_to_rounding():
    x = np.concatenate([np.linspace(-88, 88, 100_003), [0, -0.0, 1e-30, -1e-30]]).astype(np.float32)
    rows = np.stack([x, np.zeros_like(x)], axis=-1)
    actual = np.asarray(plain.jit(normalised_exp)(rows))
    exact = np.exp(rows.astype(np.float64))
    exact /= exact.sum(-1, keepdims=True)
    is_normal = exact > np.finfo(np.float32).tiny
    np.testing.assert_allclose(actual[is_normal], exact[is_normal], rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_softmax_of_what_is_not_finite_is_that_of_xla(value):
    x = normal(0, 4, 20)
    x[1, 3], x[2] = value, -np.inf
    actual, expected = (plain.jit(f)(x) for f in (rewrite(jax.nn.softmax, CPU), jax.nn.softmax))
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
