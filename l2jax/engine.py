"""The engine: a grid of trials, compiled once, spread over the devices and trained epoch by epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from l2jax import train
from l2jax.config import InvalidInput, SweepConfig
from l2jax.data import Dataset, as_dataset, split
from l2jax.model import CNN
from l2jax.results import Results
from l2jax.train import Data, Part, TrainState, Trial

Model = Callable[[nnx.Rngs], nnx.Module]

EVALUATION_BATCH = 64
PER_TRIAL, SHARED = PartitionSpec("trial"), PartitionSpec()
COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": "512"}
"""XLA:CPU vectorises for 256 bits by default; where the core has 512, training is about a tenth faster with them."""


class Epoch(NamedTuple):
    """An epoch that every trial has finished."""

    epoch: int
    """Counted from 1."""
    metrics: dict[str, np.ndarray]
    """Each (T,), strength by strength and within it seed by seed; NaN where the trial has diverged."""
    seconds: float
    """Of training; evaluation is apart."""
    examples_per_second: float
    """Trial-examples: examples trained, times trials."""


def sweep(
    l2: Sequence[float] | str = SweepConfig.l2,
    seeds: int = SweepConfig.seeds,
    *,
    dataset: str | Dataset | tuple[ArrayLike, ArrayLike] = SweepConfig.dataset,
    model: Model | None = None,
    optimizer: train.Optimizer = optax.adam,
    **options: Any,
) -> Results:
    """Trains every strength from every seed, all at the same time.

    Args:
      l2: strengths; each adds (l2/2) * sum(kernel**2) to the loss, where kernels are the parameters of that name.
      seeds: trials at each strength. Trials that share a seed share split, initial parameters and data order.
      dataset: a name, a `Dataset`, or (images, labels) with images (N, H, W, C) of uint8.
      model: makes one trial's network from `nnx.Rngs`: any Flax module that maps images (B, H, W, C) in [0, 1] to
        logits (B, classes), and whose only state is its parameters. Other state, such as batch statistics or
        dropout keys, is refused. None takes `CNN`. Convolutions and pooling are fast if they are of `l2jax.ops`.
      optimizer: makes the optimizer from a learning rate.
      **options: `epochs`, `batch_size`, `learning_rate`, `train_size`, `val_size`, as in `SweepConfig`; but a
        data set that is not named is by default trained on whole, the validation part apart.

    Raises:
      InvalidInput: for what cannot be used; says what was given and what is accepted.
    """
    if not isinstance(dataset, str):
        options = {"train_size": None, **options}
    dataset = as_dataset(dataset)
    run = Sweep(SweepConfig(l2=l2, seeds=seeds, dataset=dataset.name, **options), dataset, model, optimizer)
    for _ in run.epochs():
        pass
    return run.results()


class Sweep:
    """A sweep under way: the state of all its trials, and what came out so far.

    Every CPU core becomes a JAX device, unless JAX has been started before or told otherwise.

    Raises:
      InvalidInput: for a config, data set and model that do not go together.
    """

    def __init__(
        self,
        config: SweepConfig,
        dataset: Dataset,
        model: Model | None = None,
        optimizer: train.Optimizer = optax.adam,
    ):
        _use_every_core()
        self.config, self.dataset = config, as_dataset(dataset)
        self.axes = {"l2": config.l2, "seed": tuple(range(config.seeds))}
        self.history: list[Epoch] = []
        self.state: TrainState | None = None

        parts = _parts(config, self.dataset)
        self.num_examples = int((parts[Part.TRAIN, 0] >= 0).sum())
        if config.batch_size > self.num_examples:
            accepted = f"at most the {self.num_examples} examples of the training part"
            raise InvalidInput("batch_size", config.batch_size, accepted)
        self.model = model or functools.partial(_cnn, self.dataset)
        apply = _checked_apply(self.model, self.dataset)

        trials = list(itertools.product(*self.axes.values()))
        self.num_trials = len(trials)
        self.devices = jax.local_devices()[: self.num_trials]
        self._mesh = jax.make_mesh((len(self.devices),), ("trial",), devices=self.devices)
        # Devices take equal numbers of trials: the last trial is repeated to make them even, and never shows.
        trials += trials[-1:] * (-len(trials) % len(self.devices))
        l2, seed = (np.array(values) for values in zip(*trials, strict=True))
        rate = np.full(len(trials), config.learning_rate)
        self._trials = self._put(Trial(np.float32(l2), np.float32(rate), np.uint32(seed), np.int32(seed)), PER_TRIAL)
        self._data = self._put(_shared_data(self.dataset, parts), SHARED)

        steps = -(-self.num_examples // config.batch_size), config.batch_size
        init = functools.partial(train.init, model=self.model, optimizer=optimizer)
        epoch = functools.partial(train.epoch, apply=apply, optimizer=optimizer, steps=steps)
        evaluate = functools.partial(train.evaluate, apply=apply, batch_size=EVALUATION_BATCH)
        self._init = self._for_all_trials(init, num_shared=0)
        self._epoch = self._for_all_trials(epoch, num_shared=2, donate=0)
        self._evaluate = self._for_all_trials(evaluate, num_shared=2)

    def epochs(self) -> Iterator[Epoch]:
        """Trains on from where the sweep stands, and yields after each epoch."""
        if self.state is None:
            self.state = self._init(self._trials)
            # Compiled ahead, so that the first epoch is timed like the others.
            self._epoch = self._epoch.lower(self.state, self._trials, np.int32(1), self._data).compile()
            self._evaluate = self._evaluate.lower(self.state, self._trials, np.int32(0), self._data).compile()
        while len(self.history) < self.config.epochs:
            number = len(self.history) + 1
            start = time.perf_counter()
            self.state = jax.block_until_ready(self._epoch(self.state, self._trials, np.int32(number), self._data))
            seconds = time.perf_counter() - start
            rate = self.num_trials * self.num_examples / seconds
            self.history.append(Epoch(number, self._metrics(), seconds, rate))
            yield self.history[-1]

    def results(self) -> Results:
        """What came out of the epochs that are complete. The test part is evaluated here, once."""
        import xarray as xr

        history = self.history
        grid = tuple(len(values) for values in self.axes.values())
        curves = {
            name: ((*self.axes, "epoch"), np.stack([e.metrics[name] for e in history], -1).reshape(*grid, -1))
            for name in history[0].metrics
        }
        val_loss = curves["val_loss"][1]
        diverged = np.isnan(val_loss[..., -1])
        # NaN, where a trial has diverged, is never the lowest; without one finite epoch there is no best one: 0.
        lowest = np.where(np.isnan(val_loss), np.inf, val_loss).argmin(-1) + 1
        test = self._evaluated(Part.TEST)
        per_trial = {
            "test_loss": np.where(diverged, np.nan, test.loss.reshape(grid)),
            "test_accuracy": np.where(diverged, np.nan, test.accuracy.reshape(grid)),
            "diverged": diverged,
            "best_epoch": np.where(np.isnan(val_loss).all(-1), 0, lowest),
        }
        variables = {**curves, **{name: (tuple(self.axes), values) for name, values in per_trial.items()}}
        coords = {**{name: list(values) for name, values in self.axes.items()}, "epoch": [e.epoch for e in history]}
        return Results(xr.Dataset(variables, coords), self._description())

    def _metrics(self) -> dict[str, np.ndarray]:
        fit, held_out = self._evaluated(Part.TRAIN), self._evaluated(Part.VAL)
        metrics = {
            "train_loss": fit.loss,
            "train_accuracy": fit.accuracy,
            "penalty": fit.penalty,
            "val_loss": held_out.loss,
            "val_accuracy": held_out.accuracy,
            "l2_norm": fit.l2_norm,
        }
        diverged = ~np.isfinite([fit.loss, fit.penalty, held_out.loss]).all(0)
        if self.history:
            diverged |= np.isnan(self.history[-1].metrics["val_loss"])
        return {name: np.where(diverged, np.nan, values) for name, values in metrics.items()}

    def _evaluated(self, part: int) -> train.Evaluation:
        evaluation = self._evaluate(self.state, self._trials, np.int32(part), self._data)
        return jax.tree.map(lambda values: np.asarray(values)[: self.num_trials], evaluation)

    def _for_all_trials(self, f: Callable, num_shared: int, donate: int | tuple = ()) -> Any:
        """`f`, written for one trial, for all of them: its last `num_shared` arguments are the same for each."""
        # On a CPU a trial's working set fills the cache, so each core takes one trial after the other; accelerators
        # take all of theirs side by side.
        side_by_side = None if self.devices[0].platform == "cpu" else len(self._trials.l2) // len(self.devices)

        def on_one_device(*args: Any) -> Any:
            per_trial, shared = args[: len(args) - num_shared], args[len(args) - num_shared :]
            return lax.map(lambda one: f(*one, *shared), per_trial, batch_size=side_by_side)

        def on_all(*args: Any) -> Any:
            specs = (PER_TRIAL,) * (len(args) - num_shared) + (SHARED,) * num_shared
            spread = jax.shard_map(on_one_device, mesh=self._mesh, in_specs=specs, out_specs=PER_TRIAL, check_vma=False)
            return spread(*args)

        options = COMPILER_OPTIONS if self.devices[0].platform == "cpu" else None
        return jax.jit(on_all, donate_argnums=donate, compiler_options=options)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, NamedSharding(self._mesh, spec))

    def _description(self) -> dict[str, Any]:
        """What a reader of the results needs to know to run the sweep again."""
        packages = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy")
        return {
            "sweep": dataclasses.asdict(self.config),
            "model": _name(self.model),
            "num_params": sum(p.size for p in jax.tree.leaves(self.state.params)) // len(self._trials.l2),
            "num_trials": self.num_trials,
            "device": self.devices[0].device_kind,
            "num_devices": len(self.devices),
            "platform": platform.platform(),
            "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
            "seconds": sum(epoch.seconds for epoch in self.history),
        }


def _use_every_core() -> None:
    if jax.config.jax_num_cpu_devices < 1 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with contextlib.suppress(RuntimeError):  # JAX has been started: it keeps the devices that it has
            jax.config.update("jax_num_cpu_devices", cores)


def _cnn(dataset: Dataset, rngs: nnx.Rngs) -> CNN:
    return CNN(dataset.images.shape[1:], dataset.num_classes, rngs=rngs)


def _name(model: Model) -> str:
    return getattr(getattr(model, "func", model), "__name__", type(model).__name__)


def _checked_apply(model: Model, dataset: Dataset) -> train.Apply:
    """The network's forward pass as a function of parameters and images."""
    network = nnx.eval_shape(lambda: model(nnx.Rngs(0)))
    graphdef, params, state = nnx.split(network, nnx.Param, ...)
    if kinds := sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(state)}):
        raise InvalidInput("model", f"{_name(model)} with {', '.join(kinds)}", "a network whose only state is nnx.Param")

    def apply(params: train.Params, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params)(images)

    batch = jax.ShapeDtypeStruct((2, *dataset.images.shape[1:]), jnp.float32)
    logits = jax.eval_shape(apply, params, batch)
    if getattr(logits, "shape", None) != (2, dataset.num_classes):
        given = f"{_name(model)}, which maps images {batch.shape} to {getattr(logits, 'shape', type(logits).__name__)}"
        raise InvalidInput("model", given, f"one that maps them to logits {(2, dataset.num_classes)}")
    return apply


def _parts(config: SweepConfig, dataset: Dataset) -> np.ndarray:
    """`Data.parts`, a split for each seed."""
    num_test = 0 if dataset.test_labels is None else len(dataset.test_labels)
    test = len(dataset.labels) + np.arange(num_test)
    splits = [
        (*split(dataset.labels, seed, config.train_size, config.val_size), test) for seed in range(config.seeds)
    ]
    longest = max(len(part) for parts in splits for part in parts)
    # Room for whole batches of both sizes.
    room = max(-(-longest // size) * size for size in (config.batch_size, EVALUATION_BATCH))
    room += -room % EVALUATION_BATCH
    parts = np.full((len(splits[0]), len(splits), room), -1, np.int32)
    for number, examples in enumerate(splits):
        for part, indices in enumerate(examples):
            parts[part, number, : len(indices)] = indices
    return parts


def _shared_data(dataset: Dataset, parts: np.ndarray) -> Data:
    images, labels = dataset.images, dataset.labels
    if dataset.test_images is not None:
        images, labels = (np.concatenate(both) for both in ((images, dataset.test_images), (labels, dataset.test_labels)))
    return Data(images, labels, parts)
