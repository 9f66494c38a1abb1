"""The CNN against the same network of plain Flax layers, and the check of networks that people bring."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import as_in_sweeps, assert_close
from scipy import stats

import l2jax
from l2jax.errors import InvalidInputError

# CIFAR's size, the smallest size that is allowed, and odd sizes, whose last rows and columns pooling leaves out.
# Whole training runs in tests/engine/test_cnn_sweep.py cover MNIST's size.
SHAPES = [(32, 32, 3), (10, 10, 1), (11, 13, 1), (15, 19, 3)]


def split_abstract(model, image_shape):
    return nnx.split(nnx.eval_shape(lambda: model(image_shape, 7, rngs=nnx.Rngs(0))))


def shapes(params):
    return {path: param.shape for path, param in nnx.to_flat_state(params)}


@pytest.mark.parametrize("image_shape", [(28, 28, 1), *SHAPES])
def test_parameters_fit_plain_flax_layers(image_shape):
    (_, ours), (_, plain_flax) = (split_abstract(model, image_shape) for model in (l2jax.CNN, plain.CNN))
    assert shapes(ours) == shapes(plain_flax)


@pytest.mark.parametrize("image_shape", SHAPES)
def test_logits_equal_plain_flax_layers(image_shape):
    graphdefs, states = zip(*(split_abstract(model, image_shape) for model in (l2jax.CNN, plain.CNN)), strict=True)
    # Biases are random, too: biases of 0 would hide one that is left out or in the wrong place.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(np.float32), states[1])
    images = rng.uniform(size=(5, *image_shape)).astype(np.float32)
    logits, expected = (
        compiled(lambda p, x, g=g: nnx.merge(g, p)(x))(params, images)
        for compiled, g in zip((as_in_sweeps, plain.jit), graphdefs, strict=True)
    )
    assert logits.shape == (5, 7)
    assert_close(logits, expected)


@pytest.fixture(scope="module")
def params():
    cnn = functools.partial(l2jax.CNN, (28, 28, 1), 10)
    return as_in_sweeps(lambda: nnx.to_pure_dict(nnx.state(cnn(rngs=nnx.Rngs(3)))))()


def test_number_of_parameters_is_that_of_the_article(params):
    assert sum(param.size for param in jax.tree.leaves(params)) == 34_826


def test_biases_begin_at_zero(params):
    for layer in params.values():
        assert not layer["bias"].any()


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [("conv1", 9 * 1, 9 * 32), ("conv2", 9 * 32, 9 * 64), ("dense", 5 * 5 * 64, 10)],
)
def test_kernels_begin_glorot_uniform(params, layer, fan_in, fan_out):
    kernel = np.ravel(params[layer]["kernel"])
    limit = np.sqrt(6 / (fan_in + fan_out))
    assert np.abs(kernel).max() <= limit
    assert stats.kstest(kernel, stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.01


def sequential(*layers):
    """A model that flattens images of 7x7 and applies layers, each made from `nnx.Rngs`."""
    return lambda rngs: nnx.Sequential(lambda x: x.reshape(len(x), 49), *(layer(rngs) for layer in layers))


def linear(num_outputs):
    return lambda rngs: nnx.Linear(49, num_outputs, rngs=rngs)


MODULE = "a function that makes a Flax module from nnx.Rngs, such as its class, or a Linen module"
LOGITS = "one that maps them to logits (2, 10)"


@pytest.mark.parametrize(
    ("model", "given", "accepted"),
    [
        (sequential(linear(9)), "from images (2, 7, 7, 1) to (2, 9)", LOGITS),
        (sequential(linear(10), lambda rngs: jnp.ravel), "from images (2, 7, 7, 1) to (20,)", LOGITS),
        (sequential(linear(10), lambda rngs: lambda x: (x, x)), "from images (2, 7, 7, 1) to tuple", LOGITS),
        (lambda rngs: 1, "which makes int", MODULE),
        (nnx.Linear(49, 10, rngs=nnx.Rngs(0)), "a module, Linear, that is made already", MODULE),
        ("cnn", "cnn", MODULE),
    ],
    ids=["too few logits", "flat logits", "tuple", "no module", "a module", "a name"],
)
def test_model_that_cannot_be_trained_is_refused(model, given, accepted):
    dataset = (np.zeros((40, 7, 7), np.uint8), np.arange(40) % 10)
    with pytest.raises(InvalidInputError) as caught:
        l2jax.sweep([0.0], 1, dataset=dataset, model=model, val_size=10, batch_size=10)
    assert caught.value.option == "model"
    assert given in caught.value.given
    assert caught.value.accepted == accepted
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(28, 28), (784,), (4, 28, 28, 1)])
def test_images_of_another_rank_than_the_cnn_takes_are_refused(shape):
    images = np.zeros((40, *shape), np.float32)
    message = f"dataset: got images of shape {shape}; accepted: (H, W, C) for l2jax.CNN, or a model of your own"
    with pytest.raises(l2jax.InputError, match=f"^{re.escape(message)}$"):
        l2jax.sweep([0.0], 1, dataset=(images, np.arange(40) % 10), val_size=10, batch_size=10)


def test_images_smaller_than_10x10_are_refused():
    with pytest.raises(l2jax.InputError, match=r"^dataset: got images of 12x9; accepted: 10x10 or more"):
        l2jax.sweep([0.0], 1, dataset=(np.zeros((40, 12, 9), np.uint8), np.arange(40) % 10), val_size=10, batch_size=10)
