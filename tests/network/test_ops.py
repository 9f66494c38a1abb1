"""The drop-in operations against lax.conv_general_dilated, nnx.max_pool and nnx.Conv."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.compare import assert_same_transform
from jax import lax

from l2jax.network import ops

NUMBERS = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
    """Normal numbers of NumPy, because those of JAX take seconds to compile for each shape."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding"),
    [
        ((3, 3), (1, 1), "SAME"),
        ((3, 3), (1, 1), "VALID"),
        ((2, 5), (2, 1), "SAME"),
        ((2, 5), (2, 1), ((2, 0), (1, 3))),
        ((1, 1), (3, 2), "VALID"),
        ((4, 3), (2, 3), "SAME"),
        ((4, 3), (2, 3), ((2, 0), (1, 3))),
    ],
)
def test_convolution_equals_xla(kernel_size, strides, padding):
    x, kernel = normal(0, 2, 9, 12, 3), normal(1, *kernel_size, 3, 4)

    def value_and_grads(convolve, x, kernel):
        out, vjp = jax.vjp(lambda x, k: convolve(x, k, strides, padding, dimension_numbers=NUMBERS), x, kernel)
        return out, vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    assert_same_transform(value_and_grads, ops.conv_general_dilated, lax.conv_general_dilated, x, kernel)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 1))])
@pytest.mark.parametrize(("window", "strides"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 3)), ((2, 2), None)])
def test_pooling_equals_xla(window, strides, padding):
    # Values from a few levels, so that many windows have ties.
    x = np.round(2 * normal(0, 3, 9, 12, 2))

    def value_and_grad(pool, x):
        out, vjp = jax.vjp(lambda x: pool(x, window, strides, padding), x)
        return out, vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    assert_same_transform(value_and_grad, ops.max_pool, nnx.max_pool, x)


def network(conv, pool):
    """Two convolutions on three channels, for one trial: parameters, images and labels to a loss."""

    def loss(kernels, images):
        x = images
        for kernel in kernels:
            x = pool(jax.nn.relu(conv(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)), (2, 2), (2, 2))
        return (x**2).sum()

    return loss


def test_vmap_and_scan_on_real_digits(digits):
    images = np.repeat(digits.images[:4].astype(np.float32) / 255, 3, -1)
    kernels = [normal(i, 2, 3, 3, c, d) / 3 for i, (c, d) in enumerate([(3, 4), (4, 5)])]  # for two trials

    def grads(network):
        def step(carry, scale):
            return carry, jax.vmap(jax.value_and_grad(network), (0, None))(kernels, scale * images)

        return lax.scan(step, 0, jnp.array([1.0, 0.5]))[1]

    ours, reference = network(ops.conv_general_dilated, ops.max_pool), network(lax.conv_general_dilated, nnx.max_pool)
    assert_same_transform(grads, ours, reference, tolerance=5e-6)


def test_convolution_works_inside_nnx_conv():
    images = normal(0, 2, 9, 8, 3)
    options = {"strides": 2, "padding": "SAME", "kernel_init": lambda *_: normal(1, 3, 3, 3, 5), "rngs": nnx.Rngs(0)}
    outs = [
        nnx.Conv(3, 5, (3, 3), **options, **convolution)(images)
        for convolution in ({}, {"conv_general_dilated": ops.conv_general_dilated})
    ]
    np.testing.assert_allclose(*outs, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_dilation": 2},
        {"input_dilation": 2},
        {"feature_group_count": 3},
    ],
)
def test_unsupported_convolutions_are_refused(options):
    zeros = {"kernel_init": nnx.initializers.zeros, "rngs": nnx.Rngs(0)}
    conv = nnx.Conv(3, 6, (3, 3), conv_general_dilated=ops.conv_general_dilated, **zeros, **options)
    with pytest.raises(NotImplementedError, match=r"l2jax\.ops"):
        conv(normal(0, 2, 9, 8, 3))


def test_other_ranks_and_layouts_are_refused():
    with pytest.raises(NotImplementedError, match="rank 3"):
        ops.conv_general_dilated(normal(0, 2, 9, 3), normal(1, 3, 3, 4), (1,), "SAME")
    with pytest.raises(NotImplementedError, match="dimension numbers"):
        images, kernel = normal(0, 2, 3, 9, 9), normal(1, 4, 3, 3, 3)
        ops.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    with pytest.raises(NotImplementedError, match="rank 3"):
        ops.max_pool(normal(0, 9, 9, 3), (2, 2))
