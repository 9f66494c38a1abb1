"""A sweep: a grid of trials, compiled once, spread over the devices and trained epoch by epoch."""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset, as_dataset
from l2jax.engine import chunk as on_devices
from l2jax.engine.chunk import Chunk
from l2jax.engine.collect import collect
from l2jax.engine.compile import abstract_state
from l2jax.engine.describe import Computation, describe, described_computation, devices
from l2jax.engine.devices import put_per_trial
from l2jax.engine.digest import program_digests
from l2jax.engine.grid import find_trials, tree_stack, tree_take, tree_unstack
from l2jax.engine.ledger import EpochRecord, Ledger, new_ledger
from l2jax.engine.old_names import OldNames
from l2jax.engine.plan import Plan, make_plan
from l2jax.engine.programs import spare_outputs
from l2jax.engine.setup import make_setup
from l2jax.engine.snapshot import Snapshot, check_snapshot, restore_snapshot, restore_state, take_rows, take_snapshot
from l2jax.engine.surroundings import each_in_own_jax, own_jax
from l2jax.engine.tuning import Tuning
from l2jax.errors import SweepWarning
from l2jax.network.model import ModelFn
from l2jax.results.results import Results
from l2jax.trial.optimizer import OptimizerFn
from l2jax.trial.penalty import PenaltyFn
from l2jax.trial.train import TrainState


class Sweep(OldNames):
    """A sweep under way: iterate over `epochs()`, then take the `results()`.

    Every CPU core becomes a JAX device, unless JAX has started or was configured before.

    Args:
      config: the options.
      dataset: a `Dataset`, a name or arrays, as in `sweep`.
      model: as in `sweep`.
      optimizer: as in `sweep`.
      penalty: as in `sweep`.
      code: the SHA-256 of the files that these functions come from, by option, for the description.

    Attributes:
      functions: the model, the optimizer, the penalty and `code`, as they were given.
      setup: what does not change: the config, the data set, the grid of T trials, the devices.
      ledger: what is known of each trial.
      computation: how the trials are computed, known after `compile()` or `reproduce()`.
      compiled: the plan with its programs, after `compile()`.
      chunk: the trials that trained last, with their state on the devices.
      waiting: the states of trials that are between two epochs, on the host, by index.
      seconds: spent so far on compiling, training and evaluating.
      program_sha256: the `program_digests`, once `identify()` was called, for the description.
      storage: where workers leave their files, if that is not the run folder, for the description.

    Raises:
      InputError: for a config, data set and model that do not go together.
    """

    @own_jax()
    def __init__(
        self,
        config: SweepConfig,
        dataset: Dataset,
        *,
        model: ModelFn | None = None,
        optimizer: OptimizerFn = optax.adam,
        penalty: PenaltyFn | None = None,
        code: Mapping[str, str] | None = None,
    ):
        self.functions: dict[str, Any] = {"model": model, "optimizer": optimizer, "penalty": penalty, "code": code}
        self.setup = make_setup(config, as_dataset(dataset), **self.functions)
        self.config, self.dataset, self.axes = self.setup.config, self.setup.dataset, self.setup.axes
        self.num_trials = self.config.num_trials
        self.ledger = new_ledger(self.setup.num_examples, self.config.epochs, len(self.setup.layers))
        self.computation: Computation | None = None
        self.compiled: Plan | None = None
        self.chunk: Chunk | None = None
        self.waiting: dict[int, TrainState] = {}
        self.program_sha256: dict[str, str] | None = None
        self.storage: str | None = None
        self.seconds = {"compiling": 0.0, "training": 0.0, "evaluating": 0.0}

    @own_jax()
    def compile(self, num_trials: int | None = None, memory_share: float = 1.0) -> Plan:
        """Plans how many trials the memory holds at once, and compiles for them. A second call returns the same.

        Args:
          num_trials: to plan for; None: all that have the same number of epochs left.
          memory_share: the share of the free memory that a chunk may take, where others train beside it.
        """
        if self.compiled is None:
            unfinished = self.ledger.unfinished().values()
            num_trials = num_trials or max((len(indices) for indices in unfinished), default=self.num_trials)
            known = self.computation
            trials_at_once, tuning = known[:2] if known else (self.config.trials_at_once, None)
            self._plan(num_trials, trials_at_once, tuning, exactly=known is not None, memory_share=memory_share)
        assert self.compiled
        return self.compiled

    def _plan(self, num_trials: int, trials_at_once: int | None, tuning: Tuning | None, **options: Any) -> None:
        with self._timing("compiling"):
            self.compiled = make_plan(self.setup, num_trials, trials_at_once=trials_at_once, tuning=tuning, **options)
        self.computation = Computation(self.compiled.trials_at_once, self.compiled.tuning, *devices(self.setup))

    def extended(self, config: SweepConfig) -> Sweep:
        """The sweep of another config, of the same data set and functions."""
        return type(self)(config, self.dataset, **self.functions)

    def part(self, indices: Sequence[int]) -> Sweep:
        """The sweep of some of the trials alone, nothing of which is trained yet, with the programs of this one."""
        part = copy.copy(self)
        rows = list(indices)
        part.setup = self.setup._replace(
            trials=tree_take(self.setup.trials, rows), num_examples=self.setup.num_examples[rows]
        )
        part.num_trials = len(rows)
        part.ledger = new_ledger(part.setup.num_examples, self.config.epochs, len(self.setup.layers))
        part.chunk, part.waiting, part.seconds = None, {}, dict.fromkeys(self.seconds, 0.0)
        return part

    @each_in_own_jax
    def epochs(self, profile: Path | None = None) -> Iterator[EpochRecord]:
        """Trains what is left, chunk after chunk, and yields a record after each epoch of each chunk.

        If a device runs out of memory in spite of the plan, the chunk continues at half its size.

        Args:
          profile: a folder for a `jax.profiler` trace of a chunk's second epoch; the first is the warm-up.
        """
        while not self.finished:
            plan = self.compile()
            unfinished = next(iter(self.ledger.unfinished().values()))
            indices = tuple(unfinished[: plan.trials_at_once].tolist())
            try:
                yield from self._train(self._start(indices, plan), plan, profile)
            except RuntimeError as error:  # JAX's own name for it is gone when Python ends and closes this
                if "RESOURCE_EXHAUSTED" not in str(error) or len(indices) <= self.setup.mesh.size:
                    raise
                self._set_aside()
                self._plan(len(indices), math.ceil(len(indices) / 2), plan.tuning, exactly=False)

    def _train(self, chunk: Chunk, plan: Plan, profile: Path | None) -> Iterator[EpochRecord]:
        """Trains a chunk to the last epoch."""
        indices = chunk.indices
        epochs_done = int(self.ledger.epochs_done[indices[0]])
        profiled = min(epochs_done + 2, self.config.epochs)
        spare = spare_outputs(chunk.state, chunk.trials)
        for number in range(epochs_done + 1, self.config.epochs + 1):
            with jax.profiler.trace(profile) if profile and number == profiled else contextlib.nullcontext():
                start = time.perf_counter()
                trained, means = on_devices.train(chunk, number, plan, spare)
                seconds = time.perf_counter() - start
            with self._timing("evaluating"):
                metrics = on_devices.epoch_metrics(trained, means, plan)
            test = None
            diverged = self.ledger.now_diverged(indices, metrics)
            if diverged.any():
                trained = on_devices.freeze(trained, chunk, diverged, self.setup.mesh)
            if number == self.config.epochs:
                test = self._test(trained, plan)
            # From here on nothing fails: the epoch is either complete or has not happened.
            spare = chunk.state, means
            self.chunk = chunk = trained
            self.seconds["training"] += seconds
            self.ledger.add_epoch(indices, number, metrics, seconds)
            if test:
                self.ledger.add_test(indices, test)
            for index in indices:
                self.waiting.pop(index, None)
            yield self.ledger.record(indices, number)

    def _start(self, indices: tuple[int, ...], plan: Plan) -> Chunk:
        """The chunk that is on the devices, if it is of these trials; or one of states that wait; or a new one."""
        if self.chunk and self.chunk.indices == indices:
            return self.chunk
        self._set_aside()
        trials = put_per_trial(tree_take(self.setup.trials, indices), self.setup.mesh, plan.trials_at_once)
        if self.ledger.epochs_done[indices[0]]:
            states = tree_stack([self.waiting[index] for index in indices])
            return Chunk(indices, trials, put_per_trial(states, self.setup.mesh, plan.trials_at_once))
        chunk = Chunk(indices, trials, plan.fit.programs.init(trials))
        if on_devices.starts_alike(chunk):
            remedy = "draw them from the rngs that the model is given"
            warnings.warn(f"all seeds begin with the same kernels: {remedy}", SweepWarning, stacklevel=2)
        return chunk

    def _set_aside(self) -> None:
        """Takes the chunk off the devices; its states wait on the host if there are epochs left."""
        if self.chunk and self.ledger.epochs_done[self.chunk.indices[0]] < self.config.epochs:
            states = tree_unstack(on_devices.state_on_host(self.chunk))
            self.waiting |= zip(self.chunk.indices, states, strict=True)
        self.chunk = None

    def _test(self, chunk: Chunk, plan: Plan) -> dict[str, np.ndarray]:
        with self._timing("evaluating"):
            return on_devices.test_metrics(chunk, plan)

    @contextlib.contextmanager
    def _timing(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[activity] += time.perf_counter() - start

    @property
    def finished(self) -> bool:
        """Whether every trial has trained to the last epoch."""
        return bool((self.ledger.epochs_done == self.config.epochs).all())

    @property
    def epochs_left(self) -> int:
        """The number of records left for `epochs()` to yield; before `compile()`, as if the memory held all trials."""
        at_once = self.computation.trials_at_once if self.computation else self.config.trials_at_once or self.num_trials
        unfinished = self.ledger.unfinished().items()
        return sum(math.ceil(len(indices) / at_once) * (self.config.epochs - done) for done, indices in unfinished)

    @own_jax()
    def results(self) -> Results:
        """The results of the epochs that are complete. The test set is evaluated after the last of them.

        Raises:
          ValueError: if no epoch is complete.
        """
        return collect(self.tested_ledger(), self.axes, self.setup.layers, self.description())

    @own_jax()
    def tested_ledger(self) -> Ledger:
        """The ledger with the chunk at hand tested; of unfinished trials, that is not kept."""
        if not self.chunk or not self.compiled or self.ledger.tested[list(self.chunk.indices)].all():
            return self.ledger
        ledger = copy.deepcopy(self.ledger)
        ledger.add_test(self.chunk.indices, self._test(self.chunk, self.compiled))
        return ledger

    def description(self) -> dict[str, Any]:
        """Everything that a reader of the results needs to run the sweep again; JSON values."""
        others = {"program_sha256": self.program_sha256, "storage": self.storage}
        return describe(self.setup, self.computation, self.seconds) | others

    @own_jax()
    def identify(self) -> None:
        """Adds to the description what tells a person's own network and optimizer from others."""
        self.program_sha256 = program_digests(self.setup)

    @own_jax()
    def snapshot(self) -> Snapshot:
        """A snapshot of the chunk that trained last. Save it before the next epoch, which may reuse its memory."""
        assert self.chunk, "no epoch is complete"
        state = on_devices.state_on_host(self.chunk)
        return take_snapshot(self.ledger, self.chunk.indices, self.setup.trials, state)

    @own_jax()
    def check_snapshot(self, snapshot: Snapshot) -> None:
        """Raises ValueError for a snapshot, of arrays or their shapes, that `restore` could not take."""
        check_snapshot(snapshot, like=abstract_state(self.setup), ledger=self.ledger)

    @own_jax()
    def restore(self, snapshot: Snapshot) -> None:
        """Restores a snapshot. Trials that are as far, or further, are skipped.

        Raises:
          KeyError: for trials that this sweep does not have.
          ValueError: for the state of another network or optimizer.
        """
        indices = find_trials(snapshot.trials, self.setup.trials)
        done = self.ledger.epochs_done[indices]
        rows = np.flatnonzero(done < len(snapshot.seconds)).tolist()
        if not rows:
            return
        snapshot, restored = take_rows(snapshot, rows), [indices[row] for row in rows]
        state = restore_state(snapshot, abstract_state(self.setup))
        restore_snapshot(self.ledger, restored, snapshot)
        self.seconds["training"] += float(snapshot.seconds[done[rows].min() :].sum())
        if len(snapshot.seconds) < self.config.epochs:
            self.waiting |= zip(restored, tree_unstack(state), strict=True)

    def reproduce(self, description: dict[str, Any], num_devices: int | None = None) -> None:
        """Computes in the same way as the described sweep, bitwise, if trials, devices and options are the same.

        Call it before `compile()`. The chunks get the same size, whatever memory is free now.

        Args:
          num_devices: of a worker, where workers compute; None: this process does.
        """
        self.computation = described_computation(description, self.setup, num_devices) or self.computation
