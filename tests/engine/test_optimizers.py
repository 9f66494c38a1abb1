"""Optimizers of optax: each trains in a sweep as in a plain loop of optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import plain
from helpers.compare import mlp

import l2jax
from l2jax.config import SweepConfig
from l2jax.errors import InputError

pytestmark = pytest.mark.usefixtures("compiled_quickly")

OPTIONS = {"epochs": 3, "batch_size": 32, "val_size": 40, "learning_rate": 0.01}  # 110 examples: 4 steps per epoch


def warmup_cosine(learning_rate, total_steps):
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, learning_rate, 3, total_steps))


def joined(learning_rate, total_steps):
    warmup, decay = optax.linear_schedule(0, learning_rate, 3), optax.cosine_decay_schedule(learning_rate, total_steps)
    return optax.adam(optax.join_schedules([warmup, decay], [3]))


def decay_per_epoch(learning_rate, steps_per_epoch):
    return optax.sgd(optax.exponential_decay(10 * learning_rate, steps_per_epoch, 0.5, staircase=True))


def clipped(rate):
    return optax.chain(optax.clip_by_global_norm(0.1), optax.adam(rate))


def injected(rate):
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


def by_layer(rate):
    labels = lambda params: jax.tree.map(lambda leaf: "matrix" if leaf.ndim > 1 else "vector", params)  # noqa: E731
    return optax.multi_transform({"matrix": optax.adam(rate), "vector": optax.sgd(10 * rate)}, labels)


def on_plateau(rate):
    return optax.chain(optax.adam(rate), optax.contrib.reduce_on_plateau(patience=1, cooldown=1, factor=0.5))


OPTIMIZERS = {
    "warm-up and cosine": warmup_cosine,
    "joined schedules": joined,
    "decay per epoch": decay_per_epoch,
    "clipping": clipped,
    "injected hyperparameters": injected,
    "one per kind of parameter": by_layer,
    "reduce on plateau": on_plateau,
    "Polyak": lambda rate: optax.polyak_sgd(max_learning_rate=1.0, scaling=10 * rate),
    "MoMo": lambda rate: optax.contrib.momo(rate),
    "L-BFGS": lambda rate: optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(5)),
    "schedule-free": lambda rate: optax.contrib.schedule_free_adamw(rate, weight_decay=0.0),
}


def train(
    optimizer, dataset, config: SweepConfig, *, l2: float, eval_params, after_step=None
) -> dict[str, list[float]]:
    """Losses after each epoch of the trial of seed 0; `after_step` may change the parameters."""
    graphdef, params = nnx.split(mlp(nnx.Rngs(jax.random.fold_in(jax.random.key(0), 0))))
    optimizer = optax.with_extra_args_support(optimizer)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, images, labels):
        def objective(params):
            logits = nnx.merge(graphdef, params)(images)
            penalty = l2 / 2 * sum((kernel**2).sum() for kernel in plain.kernels(params))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + penalty

        value, grads = jax.value_and_grad(objective)(params)
        extra = {"value": value, "grad": grads, "value_fn": objective}
        updates, opt_state_after = optimizer.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state_after

    train, val = plain.training_and_validation_part(dataset, config, 0, 0)
    curves: dict[str, list[float]] = {"train_loss": [], "val_loss": []}
    for epoch in range(1, config.epochs + 1):
        order = plain.order(0, epoch, len(train[1]))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            params, opt_state = step(params, opt_state, plain.as_floats(train[0][batch]), train[1][batch])
            params = after_step(params) if after_step else params
        module = nnx.merge(graphdef, eval_params(opt_state, params))
        for part, (images, labels) in (("train", train), ("val", val)):
            logits = np.asarray(module(plain.as_floats(images)), np.float64)
            curves[f"{part}_loss"].append(plain.cross_entropy(logits, labels))
    return curves


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_as_in_a_plain_loop(name, small):
    optimizer = OPTIMIZERS[name]
    results = l2jax.sweep([0.0, 0.03], 1, dataset=small, model=mlp, optimizer=optimizer, **OPTIONS)
    total = {"total_steps": 12}
    steps = {warmup_cosine: total, joined: total, decay_per_epoch: {"steps_per_epoch": 4}}.get(optimizer, {})
    eval_params = optax.contrib.schedule_free_eval_params if name == "schedule-free" else lambda _, params: params
    config = SweepConfig(**results.config["sweep"])
    for l2 in config.l2:
        curves = train(optimizer(0.01, **steps), small, config, l2=l2, eval_params=eval_params)
        for metric, values in curves.items():
            trial = results.data[metric].sel(l2=l2, seed=0)
            np.testing.assert_allclose(trial, values, rtol=2e-5, err_msg=metric)


def test_an_optimizer_that_branches_takes_one_learning_rate(small):
    with pytest.raises(InputError, match=r"^learning_rate: got 0.1 0.01; accepted: one value, because the optimizer"):
        options = OPTIONS | {"learning_rate": [0.1, 0.01]}
        l2jax.sweep([0.0], 1, dataset=small, model=mlp, optimizer=warmup_cosine, **options)


def test_lookahead_trains_as_it_is_defined(small):
    """After 3 fast steps the slow parameters go half of the way to the fast ones, which go on from there."""

    def lookahead(rate):
        return optax.lookahead(optax.adam(rate), sync_period=3, slow_step_size=0.5)

    results = l2jax.sweep([0.03], 1, dataset=small, model=mlp, optimizer=lookahead, **OPTIONS)
    slow, steps = plain.initial(mlp, 0), 0

    def synchronise(fast):
        nonlocal slow, steps
        steps += 1
        if steps % 3:
            return fast
        slow = jax.tree.map(lambda a, b: a + 0.5 * (b - a), slow, fast)
        return slow

    config = SweepConfig(**results.config["sweep"])
    adam, at_slow = optax.adam(0.01), lambda *_: slow
    curves = train(adam, small, config, l2=0.03, eval_params=at_slow, after_step=synchronise)
    for metric, values in curves.items():
        np.testing.assert_allclose(results.data[metric].sel(l2=0.03, seed=0), values, rtol=2e-5, err_msg=metric)


def test_weight_decay_is_the_optimizers_if_it_takes_it(small):
    decays = [0.0, 0.1]
    results = l2jax.sweep([0.0], 1, dataset=small, model=mlp, optimizer=cosine_adamw, weight_decay=decays, **OPTIONS)
    config = SweepConfig(**results.config["sweep"])
    for weight_decay in decays:
        optimizer = cosine_adamw(0.01, weight_decay, 12)
        curves = train(optimizer, small, config, l2=0.0, eval_params=lambda _, params: params)
        for metric, values in curves.items():
            trial = results.data[metric].sel(l2=0.0, weight_decay=weight_decay, seed=0)
            np.testing.assert_allclose(trial, values, rtol=2e-5, err_msg=metric)


def cosine_adamw(learning_rate, weight_decay, total_steps):
    return optax.adamw(optax.cosine_decay_schedule(learning_rate, total_steps), weight_decay=weight_decay)


def test_an_optimizer_keeps_its_own_weight_decay(small):
    results = l2jax.sweep([0.0], 1, dataset=small, model=mlp, optimizer=optax.adamw, **OPTIONS)
    assert results.config["sweep"]["weight_decay"] == [1e-4]
    curves = train(optax.adamw(0.01), small, SweepConfig(**results.config["sweep"]), l2=0.0, eval_params=lambda _, p: p)
    np.testing.assert_allclose(results.data["val_loss"].sel(l2=0.0, seed=0), curves["val_loss"], rtol=2e-5)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (warmup_cosine, "optimizer: got warmup_cosine; accepted: for a schedule, one that takes weight_decay as an"),
        (
            lambda rate: optax.inject_hyperparams(optax.sgd)(lambda count: rate / (1 + count)),
            "optimizer: got <lambda>; accepted: for a schedule, one that takes weight_decay as an argument",
        ),
    ],
)
def test_weight_decay_beside_a_schedule_is_refused(optimizer, message, small):
    with pytest.raises(InputError, match=message):
        l2jax.sweep([0.0], 1, dataset=small, model=mlp, optimizer=optimizer, weight_decay=0.1, **OPTIONS)


@pytest.mark.parametrize(
    ("optimizer", "problem"),
    [
        (lambda rate: optax.multi_transform({"a": optax.sgd(rate)}, {"a": "b"}), r".*\)$"),
        (
            lambda rate: optax.GradientTransformation(lambda p: jnp.zeros(2), lambda g, s, p: (g, s[:1])),
            "its state has another form",
        ),
    ],
    ids=["labels of other parameters", "a state that changes its form"],
)
def test_an_optimizer_that_cannot_train_is_refused_in_one_line(optimizer, problem, small):
    accepted = "^optimizer: got <lambda>; accepted: an optimizer of optax for the network's parameters \\("
    with pytest.raises(InputError, match=accepted + problem) as error:
        l2jax.sweep([0.0], 1, dataset=small, model=mlp, optimizer=optimizer, **OPTIONS)
    assert "\n" not in str(error.value)
