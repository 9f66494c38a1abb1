"""The engine: a grid of trials, compiled once, spread over the devices and trained epoch by epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from l2jax import train
from l2jax.config import DOMAINS, InvalidInput, SweepConfig, parse_values
from l2jax.data import Dataset, as_dataset, load_dataset
from l2jax.devices import Plan, plan_chunks, use_every_core
from l2jax.fused import DEFAULT_LOWERING, Lowering
from l2jax.model import Model, check_model, cnn_for, model_name
from l2jax.programs import PER_TRIAL, SHARED, Programs, compile_programs
from l2jax.results import Results, collect
from l2jax.train import Part, TrainState, Trial
from l2jax.trials import EVALUATION_BATCH, make_trials, share_data
from l2jax.tuning import Tuning, autotune, default_tuning, fastest_of


class Epoch(NamedTuple):
    """An epoch that a chunk of trials has finished."""

    epoch: int
    """Counted from 1."""
    trials: range
    """Which trials, in the order of `Sweep.axes`, the last axis fastest; all of them, if they fit the memory."""
    metrics: dict[str, np.ndarray]
    """Each (len(trials),), `kernel_norm` (len(trials), layers); NaN where the trial has diverged."""
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
    """Trains every combination of hyperparameters from every seed on every fold, all at the same time.

    Args:
      l2: strengths; each adds (l2/2) * sum(kernel**2) to the loss, where kernels are the parameters of that name.
      seeds: trials at each setting. Trials that share a seed share split, initial parameters and data order.
      dataset: a name, a `Dataset`, or (images, labels) with images (N, H, W, C) of uint8.
      model: makes one trial's network from `nnx.Rngs`: any Flax module that maps images (B, H, W, C) in [0, 1] to
        logits (B, classes), and whose only state is its parameters. Other state, such as batch statistics or
        dropout keys, is refused. None takes `CNN`. Convolutions and pooling are fast if they are of `l2jax.ops`.
      optimizer: makes the optimizer from a learning rate.
      **options: the other fields of `SweepConfig`, such as `epochs`, `batch_size`, `learning_rate` (one or several),
        `folds`, `train_size` and `val_size`; but a data set that is not named is by default trained on whole, the
        validation part apart.

    Raises:
      InvalidInput: for what cannot be used; says what was given and what is accepted.
    """
    if isinstance(dataset, str):
        config = SweepConfig(parse_values("l2", l2), seeds, dataset=dataset, **options)
        dataset = load_dataset(config.dataset, config.data_dir)
    else:
        dataset = as_dataset(dataset)
        config = SweepConfig(parse_values("l2", l2), seeds, dataset=dataset.name, **{"train_size": None, **options})
    run = Sweep(config, dataset, model, optimizer)
    for _ in run.epochs():
        pass
    return run.results()


class Sweep:
    """A sweep under way: the state of the trials in training, and what came out so far.

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
        use_every_core(config.devices)
        self.config, self.dataset = config, as_dataset(dataset)
        image_shape, num_classes = self.dataset.images.shape[1:], self.dataset.num_classes
        if model and config.bfloat16:
            raise InvalidInput("bfloat16", "a model of your own", "l2jax.CNN, or layers with dtype=jnp.bfloat16")
        self.model, self.optimizer = model, optimizer
        params = check_model(self._model(), image_shape, num_classes)
        self._num_params = sum(param.size for param in jax.tree.leaves(params))
        self._layers = tuple(jax.eval_shape(train.squared_norms, params))
        data = share_data(config, self.dataset)
        self._num_examples = np.count_nonzero(data.parts[Part.TRAIN] >= 0, axis=-1)
        if config.batch_size > (fewest := self._num_examples.min()):
            accepted = f"at most the {fewest} examples of the training part"
            raise InvalidInput("batch_size", config.batch_size, accepted)

        self.axes = {name: getattr(config, name) for name in DOMAINS}
        self.axes |= {"seed": tuple(range(config.seeds)), "fold": tuple(range(config.folds))}
        self.trials = make_trials(self.axes)
        self.num_trials = len(self.trials.l2)
        self.history: list[Epoch] = []
        self._tested: dict[range, train.Evaluation] = {}
        self.seconds = {"compiling": 0.0, "training": 0.0, "evaluating": 0.0}

        self.devices = jax.local_devices()[: min(config.devices or self.num_trials, self.num_trials)]
        self._mesh = jax.make_mesh((len(self.devices),), ("trial",), devices=self.devices)
        self._data = self._put(data, SHARED)
        self._planned: tuple[Plan, Programs] | None = None
        self._state: TrainState | None = None  # of the chunk in training, as of the last epoch in `history`

    @property
    def plan(self) -> Plan:
        """How many trials are held at once. Compiles, the first time."""
        if self._planned is None:
            self.tuning = self._autotuned() if self.config.autotune else self._default_tuning()
            self._planned = self._make_plan(self.config.trials_at_once)
        return self._planned[0]

    def epochs(self, profile: Path | None = None) -> Iterator[Epoch]:
        """Trains chunk after chunk of trials, and yields after each epoch of each.

        Args:
          profile: a folder for a trace, by `jax.profiler`, of an epoch that is warm: the second.

        If a device runs out of memory in spite of the plan, the chunk begins again at half its size.
        """
        while (start := self._num_finished()) < self.num_trials:
            trials = range(start, min(start + self.plan.trials_at_once, self.num_trials))
            try:
                yield from self._train(trials, profile)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or len(trials) <= len(self.devices):
                    raise
                self._state = None
                self._planned = self._make_plan(-(-len(trials) // 2))

    def results(self) -> Results:
        """What came out of the epochs that are complete; the test part is evaluated after the last of them."""
        tested = dict(self._tested)
        if self._state is not None and self.history:
            trials = self.history[-1].trials
            tested[trials] = self._evaluated(self._state, trials, Part.TEST)
        return collect(self.axes | {"layer": self._layers}, self.history, tested, self._description())

    @property
    def epochs_left(self) -> int:
        """How often `epochs` will yet yield; 0 when the sweep is finished."""
        start = self._num_finished()
        num_chunks = -(-(self.num_trials - start) // self.plan.trials_at_once)
        return num_chunks * self.config.epochs - sum(epoch.trials.start == start for epoch in self.history)

    def _train(self, trials: range, profile: Path | None) -> Iterator[Epoch]:
        put = self._put_trials(trials, self.plan.trials_at_once)
        if self._state is None:  # none of these was trained yet, or an epoch was interrupted and its state is lost
            self.history = [epoch for epoch in self.history if epoch.trials.stop <= trials.start]
            self._state = self._programs.init(put)
        done = sum(epoch.trials == trials for epoch in self.history)
        traced = min(2, self.config.epochs)
        for number in range(done + 1, self.config.epochs + 1):
            state, self._state = self._state, None
            with jax.profiler.trace(profile) if profile and number == traced else contextlib.nullcontext():
                start = time.perf_counter()
                state, running = self._programs.epoch(state, put, np.int32(number), self._data)
                jax.block_until_ready(state)
                seconds = time.perf_counter() - start
            self.seconds["training"] += seconds
            rate = float(self._num_examples[self.trials.split[trials]].sum()) / seconds
            metrics = self._measured(state, trials, running)
            if number == self.config.epochs:
                self._tested[trials] = self._evaluated(state, trials, Part.TEST)
            self.history.append(Epoch(number, trials, metrics, seconds, rate))
            self._state = state if number < self.config.epochs else None
            yield self.history[-1]

    def _num_finished(self) -> int:
        return max((epoch.trials.stop for epoch in self.history if epoch.epoch == self.config.epochs), default=0)

    def _measured(self, state: TrainState, trials: range, running: train.Running) -> dict[str, np.ndarray]:
        fit, held_out = self._evaluated(state, trials, Part.TRAIN), self._evaluated(state, trials, Part.VAL)
        squared_norms = np.stack(list(fit.squared_norms.values()), axis=-1)
        metrics = {
            "running_objective": np.array(running.objective)[: len(trials)],
            "running_accuracy": np.array(running.accuracy)[: len(trials)],
            "train_loss": fit.loss,
            "train_accuracy": fit.accuracy,
            "penalty": fit.penalty,
            "val_loss": held_out.loss,
            "val_accuracy": held_out.accuracy,
            "val_ece": held_out.ece,
            "l2_norm": squared_norms.sum(-1),
            "kernel_norm": np.sqrt(squared_norms),
        }
        diverged = ~np.isfinite([fit.loss, fit.penalty, held_out.loss]).all(0)
        if self.history and self.history[-1].trials == trials:
            diverged |= np.isnan(self.history[-1].metrics["val_loss"])
        for values in metrics.values():
            values[diverged] = np.nan
        return metrics

    def _evaluated(self, state: TrainState | None, trials: range, part: int) -> train.Evaluation:
        start = time.perf_counter()
        put = self._put_trials(trials, self.plan.trials_at_once)
        evaluation = self._programs.evaluate(state, put, np.int32(part), self._data)
        evaluation = jax.tree.map(lambda values: np.array(values)[: len(trials)], evaluation)
        self.seconds["evaluating"] += time.perf_counter() - start
        return evaluation

    @property
    def _programs(self) -> Programs:
        assert self._planned  # by `plan`
        return self._planned[1]

    def _make_plan(self, trials_at_once: int | None) -> tuple[Plan, Programs]:
        start = time.perf_counter()
        planned = plan_chunks(self._compiled, self.num_trials, self.devices, trials_at_once)
        self.seconds["compiling"] += time.perf_counter() - start
        return planned

    def _compiled(self, num_trials: int, tuning: Tuning | None = None) -> Programs:
        tuning = tuning or self.tuning
        return compile_programs(
            self._model(tuning.few_products),
            self.optimizer,
            self.config.batch_size,
            EVALUATION_BATCH,
            self._put_trials(range(num_trials), num_trials),
            self._data,
            self._mesh,
            tuning.side_by_side,
        )

    def _model(self, few_products: int = DEFAULT_LOWERING.few_products) -> Model:
        """The person's own, or the sweep's, which can be tuned."""
        if self.model:
            return self.model
        dtype = jnp.bfloat16 if self.config.bfloat16 else jnp.float32
        return cnn_for(self.dataset.images.shape[1:], self.dataset.num_classes, Lowering(dtype, few_products))

    def _default_tuning(self) -> Tuning:
        return default_tuning(self.devices[0], -(-self.num_trials // len(self.devices)))

    def _autotuned(self) -> Tuning:
        trials = self._put_trials(range(self.num_trials), self.num_trials)
        num_examples = 16 * self.config.batch_size  # enough to tell the ways apart
        few = self._data._replace(parts=self._data.parts.at[Part.TRAIN, :, num_examples:].set(-1))

        def seconds(tuning: Tuning) -> float:
            programs = self._compiled(self.num_trials, tuning)
            state = programs.init(trials)

            def train() -> TrainState:
                nonlocal state
                state, _ = programs.epoch(state, trials, np.int32(1), few)
                return state

            return fastest_of(train)

        what = (
            self.devices[0].device_kind,
            jax.__version__,
            model_name(self._model()),
            self.dataset.images.shape[1:],
            self.dataset.num_classes,
            self.config.batch_size,
            self.config.bfloat16,
            f"{self.num_trials} trials on {len(self.devices)}",
        )
        return autotune(", ".join(map(str, what)), -(-self.num_trials // len(self.devices)), seconds)

    def _put_trials(self, trials: range, size: int) -> Trial:
        """These trials on the devices, the last one repeated up to `size`, and to equal numbers on all devices."""
        size += -size % len(self.devices)
        which = np.minimum(trials.start + np.arange(size), trials.stop - 1)
        return self._put(jax.tree.map(lambda values: values[which], self.trials), PER_TRIAL)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, NamedSharding(self._mesh, spec))

    def _description(self) -> dict[str, Any]:
        """What a reader of the results needs to know to run the sweep again."""
        packages = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy")
        return {
            "sweep": dataclasses.asdict(self.config),
            "model": model_name(self._model()),
            "num_params": self._num_params,
            "num_trials": self.num_trials,
            "trials_at_once": self.plan.trials_at_once,
            "trials_side_by_side": self.tuning.side_by_side,
            "device": self.devices[0].device_kind,
            "num_devices": len(self.devices),
            "platform": platform.platform(),
            "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
            "seconds": self.seconds,
        }
