"""The engine: a grid of trials, compiled once, spread over the devices and trained epoch by epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import ArrayLike

from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.data.dataset import Dataset, as_dataset, load_dataset
from l2jax.engine.chunk import Chunk, chunk_of
from l2jax.engine.collect import collect
from l2jax.engine.devices import Plan, use_every_core
from l2jax.engine.grid import make_trials, share_data
from l2jax.engine.placement import Placement
from l2jax.engine.snapshot import Epoch as Epoch
from l2jax.engine.snapshot import Progress, check_progress, each_of, part_of, places_of, progress_of, state_of
from l2jax.errors import InvalidInputError
from l2jax.network.cnn import ModelFn, check_model, default_model
from l2jax.results.results import Results
from l2jax.trial import train
from l2jax.trial.train import Part, TrainState


def sweep(
    l2: Sequence[float] | str = SweepConfig.l2,
    seeds: int = SweepConfig.seeds,
    *,
    dataset: str | Dataset | tuple[ArrayLike, ArrayLike] = SweepConfig.dataset,
    model: ModelFn | None = None,
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
      InputError: for what cannot be used; says what was given and what is accepted.
    """
    if isinstance(dataset, str):
        config = SweepConfig(l2, seeds, dataset=dataset, **options)
        dataset = load_dataset(config.dataset, config.data_dir)
    else:
        dataset = as_dataset(dataset)
        config = SweepConfig(l2, seeds, dataset=dataset.name, **{"train_size": None, **options})
    run = Sweep(config, dataset, model, optimizer)
    for _ in run.epochs():
        pass
    return run.results()


class Sweep:
    """A sweep under way: the state of the trials in training, and what came out so far.

    Every CPU core becomes a JAX device, unless JAX has been started before or told otherwise.

    Raises:
      InputError: for a config, data set and model that do not go together.
    """

    def __init__(
        self,
        config: SweepConfig,
        dataset: Dataset,
        model: ModelFn | None = None,
        optimizer: train.Optimizer = optax.adam,
    ):
        use_every_core(config.devices)
        self.config, self.dataset = config, as_dataset(dataset)
        image_shape, num_classes = self.dataset.images.shape[1:], self.dataset.num_classes
        if model and config.bfloat16:
            raise InvalidInputError("bfloat16", "a model of your own", "l2jax.CNN, or layers with dtype=jnp.bfloat16")
        network = model or default_model(image_shape, num_classes, bfloat16=config.bfloat16)
        params = check_model(network, image_shape, num_classes)
        self._num_params = sum(param.size for param in jax.tree.leaves(params))
        self._layers = tuple(jax.eval_shape(train.squared_norms, params))
        self.axes = {name: getattr(config, name) for name in HYPERPARAMETERS}
        self.axes |= {"seed": tuple(range(config.seeds)), "fold": tuple(range(config.folds))}
        self.trials = make_trials(self.axes)
        self.num_trials = len(self.trials.l2)
        data = share_data(config, self.dataset)
        self._num_examples = np.count_nonzero(data.parts[Part.TRAIN] >= 0, axis=-1)
        if config.batch_size > (fewest := self._num_examples.min()):
            accepted = f"at most the {fewest} examples of the training part"
            raise InvalidInputError("batch_size", config.batch_size, accepted)
        self.placement = Placement(config, self.trials, data, num_classes, model, optimizer)

        self.history: list[Epoch] = []
        self.seconds = {"compiling": 0.0, "training": 0.0, "evaluating": 0.0}
        self._done = np.zeros(self.num_trials, int)  # epochs
        self._diverged = np.zeros(self.num_trials, bool)
        self._tested: dict[tuple[int, ...], train.Evaluation] = {}
        self._held: Chunk | None = None  # after the last epoch
        self._waiting: dict[int, TrainState] = {}  # each trial's, in the host's memory, until it is trained on

    @property
    def plan(self) -> Plan:
        """How many trials are held at once. Compiles, the first time."""
        return self.placement.plan or self._make_plan()

    def epochs(self, profile: Path | None = None) -> Iterator[Epoch]:
        """Trains chunk after chunk of trials, and yields after each epoch of each.

        Args:
          profile: a folder for a trace, by `jax.profiler`, of an epoch that is warm: the second.

        If a device runs out of memory in spite of the plan, the chunk goes on at half its size.
        """
        while not self.finished:
            trials = self._next_trials()
            try:
                yield from self._train(trials, profile)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or len(trials) <= len(self.placement.devices):
                    raise
                self._set_aside()
                self._make_plan(-(-len(trials) // 2))

    def results(self) -> Results:
        """What came out of the epochs that are complete; the test part is evaluated after the last of them."""
        tested = dict(self._tested)
        if self._held and self._held.trials not in tested:
            tested[self._held.trials] = self._test(self._held)
        return collect(self.axes | {"layer": self._layers}, self.history, tested, self.description())

    @property
    def finished(self) -> bool:
        return not self._to_train()

    @property
    def epochs_left(self) -> int:
        """How often `epochs` will yet yield; 0 when the sweep is finished."""
        return sum(
            -(-size // self.plan.trials_at_once) * (self.config.epochs - done) for done, size in self._to_train()
        )

    def progress(self) -> Progress:
        """Of the trials of the last epoch; to be asked for before the next one."""
        assert self._held  # since the last epoch
        trials, state = self._held.trials, self._held.state_on_host()
        return progress_of(trials, self.trials, self.history, self._tested.get(trials), state)

    def check(self, progress: Progress) -> None:
        """Raises an exception for progress, arrays or their shapes, that `restore` could not take over."""
        state = self.placement.abstract_state()
        check_progress(progress, state, self.num_trials, self.config.epochs, len(self._layers))

    def restore(self, progress: Progress) -> None:
        """Takes over what a sweep with these trials among its own has come to; of trials it knows already, nothing.

        Raises:
          KeyError: for trials that are none of this sweep.
          ValueError: for the state of another network or optimizer.
        """
        places = places_of(progress.trials, self.trials)
        rows = [row for row, place in enumerate(places) if not self._done[place]]
        if not rows:
            return
        progress, trials = part_of(progress, rows), tuple(places[row] for row in rows)
        state = state_of(progress, self.placement.abstract_state())
        num_examples = float(self._num_examples[progress.trials.split].sum())
        for number, seconds in enumerate(progress.seconds.tolist(), start=1):
            metrics = {name: values[:, number - 1] for name, values in progress.metrics.items()}
            self.history.append(Epoch(number, trials, metrics, seconds, num_examples / seconds))
        self.history.sort(key=lambda epoch: (epoch.trials, epoch.epoch))
        self.seconds["training"] += float(progress.seconds.sum())
        self._done[list(trials)] = len(progress.seconds)
        self._diverged[list(trials)] = np.isnan(progress.metrics["val_loss"][:, -1])
        if progress.tested:
            self._tested[trials] = progress.tested
        if len(progress.seconds) < self.config.epochs:
            self._waiting |= zip(trials, each_of(state), strict=True)

    def _to_train(self) -> list[tuple[int, int]]:
        """Numbers of epochs done and of the unfinished trials that have done so many, the furthest first."""
        done, sizes = np.unique(self._done[self._done < self.config.epochs], return_counts=True)
        return list(zip(done.tolist(), sizes.tolist(), strict=True))[::-1]

    def _next_trials(self) -> tuple[int, ...]:
        """Those of the next chunk: all have done the same number of epochs."""
        alike = np.flatnonzero(self._done == self._to_train()[0][0])
        return tuple(alike[: self.plan.trials_at_once].tolist())

    def _train(self, trials: tuple[int, ...], profile: Path | None) -> Iterator[Epoch]:
        if self._held and self._held.trials != trials:
            self._set_aside()
        done = self._done[trials[0]]
        chunk = self._held or chunk_of(trials, self.placement, [self._waiting[trial] for trial in trials if done])
        traced = min(done + 2, self.config.epochs)
        for number in range(done + 1, self.config.epochs + 1):
            with jax.profiler.trace(profile) if profile and number == traced else contextlib.nullcontext():
                start = time.perf_counter()
                trained, running = chunk.train(number)
                seconds = time.perf_counter() - start
            with self._timing("evaluating"):
                metrics = trained.measure(running)
            finite = [np.isfinite(values).reshape(len(trials), -1).all(-1) for values in metrics.values()]
            self._diverged[list(trials)] |= ~np.all(finite, 0)
            if (diverged := self._diverged[list(trials)]).any():
                for values in metrics.values():
                    values[diverged] = np.nan
                trained = trained.freeze(diverged, chunk)
            self._tested.pop(trials, None)  # of fewer epochs
            if number == self.config.epochs:
                self._tested[trials] = self._test(trained)
            self.seconds["training"] += seconds
            rate = float(self._num_examples[self.trials.split[list(trials)]].sum()) / seconds
            self.history.append(Epoch(number, trials, metrics, seconds, rate))
            self._done[list(trials)] = number
            self._held = chunk = trained
            self._waiting = {trial: state for trial, state in self._waiting.items() if trial not in trials}
            yield self.history[-1]

    def _test(self, chunk: Chunk) -> train.Evaluation:
        with self._timing("evaluating"):
            return chunk.evaluate(Part.TEST)

    def _set_aside(self) -> None:
        """Takes the state of the trials of the last epoch off the devices, to the host if it is needed again."""
        if self._held and self._done[self._held.trials[0]] < self.config.epochs:
            self._waiting |= zip(self._held.trials, each_of(self._held.state_on_host()), strict=True)
        self._held = None

    def _make_plan(self, most_at_once: int | None = None) -> Plan:
        num_trials = max(size for _, size in self._to_train())
        steps = -(-int(self._num_examples.max()) // self.config.batch_size)
        with self._timing("compiling"):
            return self.placement.make_plan(num_trials, steps, most_at_once)

    @contextlib.contextmanager
    def _timing(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def description(self) -> dict[str, Any]:
        """What a reader of the results needs to know to run the sweep again."""
        packages = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy")
        return {
            "sweep": dataclasses.asdict(self.config),
            "model": self.placement.model_name(),
            "num_params": self._num_params,
            "num_trials": self.num_trials,
            "data": self.dataset.digest,
            **self.placement.description(),
            "platform": platform.platform(),
            "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
            "seconds": self.seconds,
        }
