"""A run of the command that takes a second: made-up images, a small network, two chunks of trials."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from helpers import plain
from helpers.fake_data import images_like
from l2jax.atomic import write_whole
from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.engine import plan
from l2jax.engine.programs import COMPILER_OPTIONS
from l2jax.engine.sweep import Sweep
from l2jax.run import saving, session
from l2jax.run.options import RunOptions

CONFIG = SweepConfig(
    (0.0, 1e-2), 2, epochs=3, batch_size=16, train_size=40, val_size=32, dataset="made up", trials_at_once=2
)
"""Trials 0 and 1 make the first chunk, 2 and 3 the second one."""


@functools.cache
def dataset() -> Dataset:
    labels = np.random.default_rng(1).permutation(np.arange(100) % 4).astype(np.int32)
    images = images_like(100, 7, 7, 1) // 2 + 40 * labels.astype(np.uint8)[:, None, None, None]
    return Dataset("made up", images[:80], labels[:80], 4, images[80:], labels[80:])


mlp = plain.mlp(49, 4)


def sweep(config: SweepConfig = CONFIG, data: Dataset | None = None, **_) -> Sweep:
    return Sweep(config, data or dataset(), model=mlp)


def run(run_dir: Path, config: SweepConfig = CONFIG, draw: bool = False, resume: bool = False, **options) -> int:
    """Runs the command with a tiny sweep and a checkpoint after every epoch; figures and report only with `draw`."""
    changed = {"load_with_progress": lambda *_: dataset(), "Sweep": sweep}
    drawing: dict = {"plot": saving.plot, "write_report": saving.write_report}
    if not draw:
        drawing["plot"] = SimpleNamespace(drawings=lambda _: {})
        drawing["write_report"] = lambda _, path: write_whole(path, b"not drawn")
    options = {"quiet": True, "checkpoint_minutes": 0.0, "resume" if resume else "run_dir": run_dir, **options}
    with mock.patch.multiple(session, **changed), mock.patch.multiple(saving, **drawing):
        return session.run(config, RunOptions(**options))


COMPILED: dict = {}


@contextlib.contextmanager
def compiled_quickly() -> Iterator[None]:
    """Sweeps of equal shapes share their programs, which XLA compiles with less care: these need not run fast."""
    compile_for = plan.compile_for

    def remembered(setup, num_trials, tuning):
        config, shapes = setup.config, tuple((array.shape, array.dtype) for array in setup.examples)
        functions = setup.own_model, setup.optimizer, setup.penalty, tuple(config.values)
        key = functions, config.batch_size, num_trials, tuning, setup.mesh, shapes
        if key not in COMPILED:
            COMPILED[key] = compile_for(setup, num_trials, tuning)
        return COMPILED[key]

    patched = mock.patch.object(plan, "compile_for", remembered)
    with patched, mock.patch.dict(COMPILER_OPTIONS, plain.QUICKLY):
        yield
