"""Where the trials of a sweep are computed: on which devices, how many at once, and by which compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from l2jax.config import SweepConfig
from l2jax.engine.devices import Plan, plan_chunks
from l2jax.engine.grid import EVALUATION_BATCH
from l2jax.engine.programs import PER_TRIAL, SHARED, Programs, compile_programs
from l2jax.engine.snapshot import rows_of
from l2jax.engine.tuning import Tuning, autotune, default_tuning, fastest_of
from l2jax.network.cnn import ModelFn, default_model, model_name
from l2jax.network.fused import DEFAULT_LOWERING
from l2jax.trial import train
from l2jax.trial.train import Data, Part, TrainState, Trial


class Placement:
    """The devices of a sweep, the data on them, and the programs for chunks of its trials.

    Args:
      trials: all of the sweep, arrays (T,).
      data: on the host; it is put on the devices once.
      model: a person's own; None is the sweep's, which can be tuned.
    """

    def __init__(
        self,
        config: SweepConfig,
        trials: Trial,
        data: Data,
        num_classes: int,
        model: ModelFn | None,
        optimizer: train.Optimizer,
    ):
        self.trials, self._config, self._own_model, self._optimizer = trials, config, model, optimizer
        self._image_shape: Any = data.images.shape[1:]
        self._num_classes = num_classes
        num_trials = len(trials.l2)
        self.devices = jax.local_devices()[: min(config.devices or num_trials, num_trials)]
        self._mesh = jax.make_mesh((len(self.devices),), ("trial",), devices=self.devices)
        self.data = self.put(data, SHARED)
        self.plan: Plan | None = None
        self.tuning: Tuning | None = None
        self._as_before: int | None = None  # trials at once
        self.programs: Programs
        """Of the plan."""

    def make_plan(self, num_trials: int, steps: int, most_at_once: int | None = None) -> Plan:
        """Plans chunks of so many trials, and compiles for one of them.

        Args:
          steps: of one trial in an epoch.
          most_at_once: of the trials in a chunk; None: as the config says.
        """
        if self.tuning is None:
            self.tuning = (
                self._autotuned() if self._config.autotune else default_tuning(self.devices[0], self._trials_a_device)
            )
        compiled = functools.partial(self._compiled, tuning=self.tuning)
        if self._as_before and not most_at_once:  # even if fewer are left than were held at once
            plan, self.programs = plan_chunks(compiled, self._as_before, self.devices, self._as_before, steps)
            self.plan = plan._replace(num_chunks=-(-num_trials // self._as_before))
        else:
            at_once = most_at_once or self._config.trials_at_once
            self.plan, self.programs = plan_chunks(compiled, num_trials, self.devices, at_once, steps)
        return self.plan

    def compute_as(self, description: dict[str, Any]) -> None:
        """Lets results be bitwise those of the sweep that is so described, if it has these trials and devices.

        Whatever memory is free, as many trials are held at once, and they are computed in the same way.
        """
        num_trials, num_devices = len(self.trials.l2), len(self.devices)
        same = {"num_trials": num_trials, "num_devices": num_devices, "device": self.devices[0].device_kind}
        asked = {"trials_at_once": self._config.trials_at_once, "autotune": self._config.autotune}
        if same.items() <= description.items() and asked.items() <= description["sweep"].items():
            self._as_before, self.tuning = description["trials_at_once"], Tuning(**description["tuning"])

    def description(self) -> dict[str, Any]:
        """How the trials are computed, for `compute_as`; None for what is not planned yet."""
        return {
            "trials_at_once": self.plan.trials_at_once if self.plan else self._as_before,
            "tuning": self.tuning and self.tuning._asdict(),
            "device": self.devices[0].device_kind,
            "num_devices": len(self.devices),
        }

    def put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, NamedSharding(self._mesh, spec))

    def put_rows(self, tree: Any, size: int | None = None) -> Any:
        """Arrays of trials (n, ...) on the devices: as many rows as a chunk has, or `size`; the last one repeated."""
        if size is None:
            assert self.plan
            size = self.plan.trials_at_once
        size += -size % len(self.devices)  # equal numbers on all devices
        rows = jax.tree.map(lambda values: values[np.minimum(np.arange(size), len(values) - 1)], tree)
        return self.put(rows, PER_TRIAL)

    def put_trials(self, which: Sequence[int]) -> Trial:
        """These trials on the devices."""
        return self.put_rows(rows_of(self.trials, which))

    def model(self, few_products: int = DEFAULT_LOWERING.few_products) -> ModelFn:
        return self._own_model or default_model(
            self._image_shape, self._num_classes, bfloat16=self._config.bfloat16, few_products=few_products
        )

    def model_name(self) -> str:
        return model_name(self._own_model) if self._own_model else "cnn"

    def abstract_state(self) -> TrainState:
        """The shapes of one trial's state."""
        init = functools.partial(train.init, model=self.model(), optimizer=self._optimizer)
        return jax.eval_shape(init, jax.tree.map(lambda values: jax.ShapeDtypeStruct((), values.dtype), self.trials))

    def _compiled(self, num_trials: int, tuning: Tuning) -> Programs:
        return compile_programs(
            self.model(tuning.few_products),
            self._optimizer,
            self._config.batch_size,
            EVALUATION_BATCH,
            self.put_rows(rows_of(self.trials, range(num_trials)), num_trials),
            self.data,
            self._mesh,
            tuning.side_by_side,
        )

    @property
    def _trials_a_device(self) -> int:
        return -(-len(self.trials.l2) // len(self.devices))

    def _autotuned(self) -> Tuning:
        num_trials = len(self.trials.l2)
        trials = self.put_rows(self.trials, num_trials)
        num_examples = 16 * self._config.batch_size  # enough to tell the ways apart
        parts = np.array(self.data.parts)
        parts[Part.TRAIN, :, num_examples:] = -1
        few = self.data._replace(parts=self.put(parts, SHARED))

        def seconds(tuning: Tuning) -> float:
            programs = self._compiled(num_trials, tuning)
            state = programs.init(trials)

            def train() -> TrainState:
                nonlocal state
                state, _ = programs.epoch(state, trials, np.int32(1), few)
                return state

            return fastest_of(train)

        what = (
            self.devices[0].device_kind,
            jax.__version__,
            self.model_name(),
            self._image_shape,
            self._num_classes,
            self._config.batch_size,
            self._config.bfloat16,
            f"{num_trials} trials on {len(self.devices)}",
        )
        return autotune(", ".join(map(str, what)), self._trials_a_device, seconds)
