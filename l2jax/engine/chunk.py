"""A chunk: trials that are trained, measured and frozen together, by the programs that are compiled for so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2jax.engine.placement import Placement
from l2jax.engine.programs import PER_TRIAL
from l2jax.engine.snapshot import stacked
from l2jax.trial.train import Evaluation, Part, Running, TrainState, Trial


class Chunk(NamedTuple):
    """Trials, n of them, and their state. On the devices the last one is repeated, until there are as many on each."""

    placement: Placement
    trials: tuple[int, ...]
    """(n,): which of the sweep's."""
    values: Trial
    """On the devices."""
    state: TrainState
    """On the devices."""

    def train(self, epoch: int) -> tuple[Chunk, Running]:
        """The chunk after one more epoch; this one stays as it is."""
        placement = self.placement
        state, running = placement.programs.epoch(self.state, self.values, np.int32(epoch), placement.data)
        return self._replace(state=jax.block_until_ready(state)), running

    def evaluate(self, part: int) -> Evaluation:
        """Measures its trials (n,) on one `Part` of their data."""
        placement = self.placement
        evaluation = placement.programs.evaluate(self.state, self.values, np.int32(part), placement.data)
        return jax.tree.map(self._to_host, evaluation)

    def measure(self, running: Running) -> dict[str, np.ndarray]:
        """What is recorded of an epoch, (n,) each; `kernel_norm` is (n, layers)."""
        fit, held_out = self.evaluate(Part.TRAIN), self.evaluate(Part.VAL)
        squared_norms = np.stack(list(fit.squared_norms.values()), axis=-1)
        with np.errstate(over="ignore"):  # the trial has diverged
            kernel_sum_of_squares = squared_norms.sum(-1)
        measured = {
            "running_objective": self._to_host(running.objective),
            "running_accuracy": self._to_host(running.accuracy),
            "train_loss": fit.loss,
            "train_accuracy": fit.accuracy,
            "penalty": fit.penalty,
            "val_loss": held_out.loss,
            "val_accuracy": held_out.accuracy,
            "val_ece": held_out.ece,
            "kernel_sum_of_squares": kernel_sum_of_squares,
            "kernel_norm": np.sqrt(squared_norms),
        }
        return {name: np.asarray(values) for name, values in measured.items()}

    def freeze(self, frozen: np.ndarray, before: Chunk) -> Chunk:
        """The trials that are `frozen` (n,) get the state back that they had before."""
        stays = self.placement.put_rows(frozen)

        def chosen(before: jax.Array, after: jax.Array) -> jax.Array:
            return jnp.where(stays.reshape(-1, *[1] * (after.ndim - 1)), before, after)

        return self._replace(state=self.placement.put(jax.tree.map(chosen, before.state, self.state), PER_TRIAL))

    def state_on_host(self) -> TrainState:
        """Arrays (n, ...), not to be written to: on CPU they are the devices' own."""
        return jax.tree.map(lambda values: np.asarray(values)[: len(self.trials)], self.state)

    def _to_host(self, values: jax.Array) -> np.ndarray:
        return np.array(values)[: len(self.trials)]


def chunk_of(trials: tuple[int, ...], placement: Placement, states: Sequence[TrainState] = ()) -> Chunk:
    """Puts trials on the devices, with their states from the host, or else as they begin."""
    values = placement.put_trials(trials)
    state = placement.put_rows(stacked(states)) if states else placement.programs.init(values)
    return Chunk(placement, trials, values, state)
