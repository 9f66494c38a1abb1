"""conv_relu_max_pool against lax.conv_general_dilated and lax.reduce_window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain
from helpers.compare import as_in_sweeps, assert_same_transform
from jax import Array, lax

from l2jax.rewrite.fused import DEFAULT_LOWERING, Lowering, conv_relu_max_pool


def reference(x: Array, kernel: Array, bias: Array) -> Array:
    """The same as conv_relu_max_pool, written with XLA's own operations."""
    images = x.transpose(3, 1, 2, 0)
    numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=numbers)
    y = jax.nn.relu(y + bias[None, None, None])
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").transpose(3, 1, 2, 0)


def value_and_grads(f, x, kernel, bias, d_out):
    out, vjp = jax.vjp(f, x, kernel, bias)
    return out, *vjp(d_out)


def assert_equals_reference(transform, *arguments, lowering=DEFAULT_LOWERING):
    assert_same_transform(transform, functools.partial(conv_relu_max_pool, lowering=lowering), reference, *arguments)


def normal(*shapes, seed=0):
    """Normal numbers of NumPy, because those of JAX take seconds to compile for each shape."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def random_arguments(channels, height, width, features, kh, kw, batch=6):
    pooled = ((height - kh + 1) // 2, (width - kw + 1) // 2)
    return normal(
        (channels, height, width, batch),
        (kh, kw, channels, features),
        (features,),
        (features, *pooled, batch),
    )


# Both lowerings (few products and many), even and odd sizes, square and other kernels.
SHAPES = [
    (1, 28, 28, 32, 3, 3),
    (1, 12, 13, 5, 3, 2),
    (2, 8, 9, 9, 1, 1),
    (32, 13, 13, 16, 3, 3),
    (4, 9, 10, 6, 2, 3),
    # These differ from those above in size only.
    pytest.param((1, 27, 26, 9, 3, 3), marks=pytest.mark.slow),
    pytest.param((32, 12, 12, 16, 3, 3), marks=pytest.mark.slow),
    pytest.param((4, 9, 10, 6, 5, 4), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_conv_relu_max_pool_equals_xla(shape):
    assert_equals_reference(value_and_grads, *random_arguments(*shape))


def test_few_products_equal_xla_as_a_matrix_product():
    assert_equals_reference(value_and_grads, *random_arguments(*SHAPES[1]), lowering=Lowering(few_products=0))


def test_conv_relu_max_pool_under_vmap():
    stacked = [np.stack([a, 2 * a, -a]) for a in random_arguments(4, 9, 10, 8, 3, 3)]
    assert_equals_reference(lambda f, *args: jax.vmap(functools.partial(value_and_grads, f))(*args), *stacked)


def test_conv_relu_max_pool_under_scan():
    def all_scales(f, x, kernel, bias, d_out):
        def step(carry, scale):
            return carry, value_and_grads(f, scale * x, kernel, bias, d_out)

        return lax.scan(step, 0, jnp.array([1.0, -0.5, 2.0]))[1]

    assert_equals_reference(all_scales, *random_arguments(1, 12, 12, 16, 3, 3))


def two_layers(f, x, kernels, biases, d_out):
    def apply(x, kernels, biases):
        return f(f(x, kernels[0], biases[0]), kernels[1], biases[1])

    out, vjp = jax.vjp(apply, x, kernels, biases)
    return out, vjp(d_out)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_of_ties_on_real_digits(digits, seed):
    """In blank regions all four positions of a window are equal: the gradient goes to the first, as in XLA."""
    x = digits.images[:16].transpose(3, 1, 2, 0).astype(np.float32) / 255
    *kernels, bias1, bias2, d_out = normal((3, 3, 1, 8), (3, 3, 8, 8), (8,), (8,), (8, 5, 5, 16), seed=seed)
    kernels, biases = [kernels[0] / 3, kernels[1] / 9], [np.abs(bias1), bias2]
    first = np.asarray(plain.jit(reference)(x, kernels[0], biases[0]))
    windows = first[:, :12, :12].reshape(8, 6, 2, 6, 2, 16)
    ties = (windows == windows[:, :, :1, :, :1]).all((2, 4)) & (windows[:, :, 0, :, 0] > 0)
    assert ties.mean() > 0.1  # there must be ties to test

    assert_equals_reference(two_layers, x, kernels, biases, d_out)


def test_gradient_of_ties_in_stripes():
    """Like blank regions, but not 0: all rows are the same, so that each window has two ties."""
    x, kernel, bias, d_out = random_arguments(*SHAPES[0])
    assert_equals_reference(value_and_grads, np.broadcast_to(x[:, :1], x.shape), kernel, bias, d_out)


def test_nan_reaches_the_output():
    x, kernel, bias, _ = random_arguments(1, 12, 12, 4, 3, 3)
    x[0, 5, 5, 0] = np.nan
    assert np.isnan(as_in_sweeps(conv_relu_max_pool)(x, kernel, bias)).any()
