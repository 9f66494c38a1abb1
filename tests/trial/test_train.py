"""The training of one trial, without the engine, against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import as_in_sweeps, assert_close

import l2jax
from l2jax.arguments import Arguments
from l2jax.errors import InputError
from l2jax.network.model import make_network
from l2jax.network.network import Network
from l2jax.trial import train
from l2jax.trial.evaluate import evaluate
from l2jax.trial.optimizer import Optimizer
from l2jax.trial.penalty import default_penalty
from l2jax.trial.train import Batch, Examples, Part, Trial


def trial(l2=0.0, learning_rate=1.0, seed=0, split_index=0, **others):
    zeros = {"l1": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0}
    hyperparameters = {"l2": l2, "learning_rate": learning_rate} | zeros | others
    scalars = {name: np.float32(value) for name, value in hyperparameters.items()}
    return Trial(scalars, np.uint32(seed), np.int32(split_index))


mlp = plain.mlp(6, 3, width=5)


def random_params(model):
    """Normal, biases too."""
    rng = np.random.default_rng(0)
    params = nnx.state(nnx.eval_shape(lambda: model(nnx.Rngs(0))))
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)


def kernels_and_others(params):
    flat = nnx.to_flat_state(params)
    return [[p[...] for path, p in flat if (path[-1] == "kernel") == wanted] for wanted in (True, False)]


def stateless(module):
    """The functions of a module whose only variables are its parameters, written without the package's own."""
    graphdef, initial = nnx.split(module)

    def apply(params, state, images, _):
        return nnx.merge(graphdef, params)(images), params, state

    return Network("Module", Arguments(), lambda *_: (initial, ()), apply, False, lambda p, _: nnx.merge(graphdef, p))


def l2_on_all(module):
    return default_penalty(nnx.state(module), "*", with_l1=False)


SGD, ADAM = (Optimizer(function, Arguments(("learning_rate",))) for function in (optax.sgd, optax.adam))


# Penalty and objective


def test_gradient_of_the_penalty_is_l2_times_kernel():
    params = random_params(mlp)
    kernels, biases = kernels_and_others(params)
    assert len(kernels) == len(biases) == 2
    value, grads = jax.value_and_grad(default_penalty(params, "*", with_l1=False))(params, {"l2": 0.3})
    np.testing.assert_allclose(value, 0.15 * sum((np.asarray(k, np.float64) ** 2).sum() for k in kernels), rtol=1e-6)
    d_kernels, d_biases = kernels_and_others(grads)
    for d_kernel, kernel in zip(d_kernels, kernels, strict=True):
        np.testing.assert_allclose(d_kernel, 0.3 * kernel, rtol=1e-6)
    for d_bias in d_biases:
        assert not d_bias.any()


def test_gradient_of_the_elastic_net():
    params = random_params(mlp)
    params["layers"][0]["kernel"][...] = np.array(params["layers"][0]["kernel"][...]) * (np.arange(5) != 2)  # some 0
    kernels, _ = kernels_and_others(params)
    penalty = default_penalty(params, "*", with_l1=True)
    value, grads = jax.value_and_grad(penalty)(params, {"l2": 0.3, "l1": 0.2})
    exact = sum((0.15 * np.square(k, dtype=np.float64) + 0.2 * np.abs(k)).sum() for k in kernels)
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    for d_kernel, kernel in zip(kernels_and_others(grads)[0], kernels, strict=True):
        np.testing.assert_allclose(d_kernel, 0.3 * kernel + 0.2 * np.sign(kernel), rtol=1e-6)
    assert not kernels_and_others(grads)[0][0][:, 2].any()


def test_the_penalty_falls_on_the_layers_that_match():
    params = random_params(mlp)
    kernels, _ = kernels_and_others(params)
    for patterns, chosen in {"*": [0, 1], "layers/1": [1], "*0 *1": [0, 1], "*/0": [0]}.items():
        value = default_penalty(params, patterns, with_l1=False)(params, {"l2": 2.0})
        np.testing.assert_allclose(value, sum((kernels[index] ** 2).sum() for index in chosen), rtol=1e-6)
    for patterns in ("conv*", "* conv*", ""):
        with pytest.raises(InputError, match=r"^l2_on: got .*; accepted: patterns of layers .*: layers/0, layers/1$"):
            default_penalty(params, patterns, with_l1=False)


def test_objective_averages_over_the_mask():
    network = nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: mlp(nnx.Rngs(0)))), random_params(mlp))
    rng = np.random.default_rng(1)
    images, labels = rng.uniform(size=(7, 2, 3, 1)).astype(np.float32), rng.integers(0, 3, 7)
    real = np.array([True, False, True, True, False, False, True])
    params = nnx.state(network)
    value_and_grad = jax.value_and_grad(train.objective, has_aux=True)
    functions = {"network": stateless(network), "penalty": l2_on_all(network)}
    value_and_grad = plain.jit(functools.partial(value_and_grad, params, (), trial(0.2), **functions))
    masked = value_and_grad(Batch(images, labels, real))
    alone = value_and_grad(Batch(images[real], labels[real], np.ones(4, bool)))
    assert_close(masked, alone)
    logits = np.asarray(network(images[real]), np.float64)
    sum_of_squares = sum((k**2).sum() for k in plain.kernels(params))
    np.testing.assert_allclose(
        masked[0][0], plain.cross_entropy(logits, labels[real]) + 0.1 * sum_of_squares, rtol=1e-6
    )
    assert masked[0][1][0] == (logits.argmax(1) == labels[real]).sum()


# One epoch. Image i is white in pixel i alone: row i of a linear network's kernel moves when example i is used.

NUM_EXAMPLES, BATCH = 23, 5


class Linear(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros((NUM_EXAMPLES, 2)))

    def __call__(self, x):
        return x.reshape(len(x), -1) @ self.kernel[...]


def halving_sgd(learning_rate):
    """SGD whose rate is halved after each step, so that an update tells in which step it was made."""
    return optax.sgd(lambda count: learning_rate * 0.5**count)


@plain.jit
def trained_kernel(trial, epoch, examples):
    options = {"network": stateless(Linear()), "optimizer": Optimizer(halving_sgd, Arguments(("learning_rate",)))}
    state = train.init(trial, **options)
    options |= {"penalty": l2_on_all(Linear()), "batch_size": BATCH, "sizes": (NUM_EXAMPLES,)}
    state, _ = train.train_epoch(state, trial, epoch, examples, **options)
    return plain.kernels(state.params)[0]


def moves(seed=0, epoch=1, padding=2):
    """How far one epoch moves each row of the kernel from 0: (N,)."""
    images = 255 * np.eye(NUM_EXAMPLES, dtype=np.uint8).reshape(NUM_EXAMPLES, 1, NUM_EXAMPLES, 1)
    indices = np.r_[np.arange(NUM_EXAMPLES), np.full(padding, -1)].astype(np.int32)
    labels = np.zeros(NUM_EXAMPLES, np.int32)
    examples = Examples(images, labels, labels[None], np.tile(indices, (3, 1, 1)))
    kernel = np.asarray(trained_kernel(trial(seed=seed), epoch, examples))
    np.testing.assert_array_equal(kernel[:, 0], -kernel[:, 1])
    return kernel[:, 0]


def test_an_epoch_uses_each_example_once():
    # At 0 all probabilities are 1/2: the first example moves its row by 1/2 of rate over batch size. Had it been used
    # again, it would have moved further, by another amount.
    expected = [0.5 * 0.5**step / size for step, size in enumerate([5, 5, 5, 5, 3]) for _ in range(size)]
    np.testing.assert_allclose(np.sort(moves()), np.sort(expected), rtol=1e-6)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (0, 2), (1, 1)])
def test_seed_and_epoch_decide_the_order(seed, epoch):
    in_order = moves(seed, epoch)[plain.order(seed, epoch, NUM_EXAMPLES)]
    steps = np.round(np.log2(0.5 / np.array([5, 5, 5, 5, 3]).repeat([5, 5, 5, 5, 3]) / in_order))
    np.testing.assert_array_equal(steps, np.arange(5).repeat([5, 5, 5, 5, 3]))


def test_order_differs_between_epochs_and_between_seeds():
    orders = [moves(seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_order_does_not_depend_on_padding():
    np.testing.assert_array_equal(moves(padding=2), moves(padding=105))


def test_initial_params_depend_on_the_seed_alone():
    init = plain.jit(functools.partial(train.init, network=make_network(mlp, (2, 3, 1)), optimizer=ADAM))

    def params(**kwargs):
        return jax.tree.leaves(init(trial(**kwargs)).params)

    first, same, other = (
        params(l2=0.0, seed=1),
        params(l2=0.5, learning_rate=0.1, split_index=1, seed=1),
        params(seed=2),
    )
    expected = jax.tree.leaves(plain.initial(mlp, 1))
    for a, b, c in zip(first, same, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


# Without any light in the images there is nothing to learn but how frequent the classes are


def test_on_blank_images_each_step_scales_the_kernels():
    """Kernel_t = (1 - lr * l2)^t * kernel_0; biases of convolutions stay 0; the dense bias does not know of l2."""
    labels = np.random.default_rng(0).integers(0, 10, 22).astype(np.int32)
    parts = np.r_[:22, -1, -1].astype(np.int32)[None, None]
    examples = Examples(np.zeros((22, 10, 10, 1), np.uint8), labels, labels[None], parts)
    network = nnx.eval_shape(lambda: l2jax.CNN((10, 10, 1), 10, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    initial = jax.tree.map(
        lambda p: (rng.normal(0, 0.1, p.shape) * (p.ndim > 1)).astype(np.float32), nnx.state(network)
    )
    rate = 0.125
    options = {"network": stateless(network), "optimizer": SGD, "penalty": l2_on_all(network)}
    options |= {"batch_size": 4, "sizes": (22,)}
    one_epoch = as_in_sweeps(functools.partial(train.train_epoch, **options))
    bias = np.zeros(10)
    for epoch in (1, 2):
        order = plain.order(0, epoch, 22)
        for batch in np.split(labels[order], range(4, 22, 4)):
            probabilities = np.exp(bias) / np.exp(bias).sum()
            bias -= rate * (probabilities - np.bincount(batch, minlength=10) / len(batch))

    for l2 in (0.0, 0.4, 8.0, 20.0):  # 8: to 0 at once; 20: by a factor of -1.5
        state = train.TrainState(initial, optax.sgd(rate).init(initial), ())
        for epoch in (1, 2):
            state, _ = one_epoch(state, trial(l2, rate), epoch, examples)
        kernels, biases = kernels_and_others(state.params)
        for kernel, kernel_0 in zip(kernels, plain.kernels(initial), strict=True):
            np.testing.assert_allclose(kernel, (1 - rate * l2) ** 12 * kernel_0, rtol=1e-5)
        assert [b.any() for b in biases] == [False, False, True]
        np.testing.assert_allclose(biases[2], bias, rtol=1e-5, atol=1e-6)


# Evaluation


def test_evaluation_averages_over_the_examples_of_a_part():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 2, 3, 1), np.uint8), rng.integers(0, 3, 30).astype(np.int32)
    parts = np.full((3, 2, 12), -1, np.int32)
    parts[Part.VAL, 1, :9] = chosen = rng.permutation(30)[:9]  # two batches of 4 and one of 1
    wrong = (labels + 1) % 3
    examples = Examples(images, labels, np.stack([labels, wrong]), parts)
    network = stateless(nnx.eval_shape(lambda: mlp(nnx.Rngs(0))))
    state = train.TrainState(plain.initial(mlp, 0), None, ())
    penalty = default_penalty(state.params, "*", with_l1=False)
    options = {"network": network, "penalty": penalty, "batch_size": 4, "part_sizes": (9, 9, 0)}
    evaluate_part = plain.jit(functools.partial(evaluate, **options))
    evaluation = evaluate_part(state, trial(l2=0.5, split_index=1), Part.VAL, examples)
    logits = np.asarray(network.apply(state.params, (), plain.as_floats(images[chosen]), False)[0], np.float64)
    np.testing.assert_allclose(evaluation.loss, plain.cross_entropy(logits, labels[chosen]), rtol=1e-6)
    np.testing.assert_allclose(evaluation.accuracy, (logits.argmax(1) == labels[chosen]).mean(), rtol=1e-6)
    sum_of_squares = sum((np.asarray(k, np.float64) ** 2).sum() for k in plain.kernels(state.params))
    np.testing.assert_allclose(evaluation.penalty, 0.25 * sum_of_squares, rtol=1e-6)
    first, second = plain.kernels(state.params)
    expected = {"layers/0": (first**2).sum(), "layers/1": (second**2).sum()}
    assert evaluation.sums_of_squares == {name: pytest.approx(float(value)) for name, value in expected.items()}
    parts[Part.TRAIN, 1, :9] = chosen  # where labels may be wrong on purpose
    fit = evaluate_part(state, trial(split_index=1), Part.TRAIN, examples)
    np.testing.assert_allclose(fit.loss, plain.cross_entropy(logits, wrong[chosen]), rtol=1e-6)
    empty = evaluate_part(state, trial(split_index=1), Part.TEST, examples)
    assert np.isnan([empty.loss, empty.accuracy]).all()
