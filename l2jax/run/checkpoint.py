"""Checkpoints: what a sweep needs to continue after any interruption, in its run folder. Each is whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from l2jax.atomic import check_sealed, seal, to_disk, write_whole
from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.engine.grid import trial_keys
from l2jax.engine.snapshot import Snapshot
from l2jax.errors import reason
from l2jax.results.files import CONFIG
from l2jax.results.metrics import RENAMED
from l2jax.trial.train import Trial

# Orbax takes a second to import, so it is imported only where a checkpoint is written or read.

ARRAYS = "arrays"
KEEP_PER_TRIAL = 2
"""Checkpoints kept per trial: the latest, and one in case it is damaged."""


class Checkpoint(NamedTuple):
    """A checkpoint as it is read.

    Attributes:
      snapshot: of trials that trained together.
      description: of the sweep, as in the run's config.json.
    """

    snapshot: Snapshot
    description: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: numbered folders, each with the snapshot of trials that trained together.

    A folder holds the arrays as Orbax writes them, a description of the sweep, and checksums of all its files.
    """

    def __init__(self, run_dir: Path):
        self.folder = run_dir / "checkpoints"
        self._trials: dict[Path, set[tuple]] = {}  # in each folder, as far as they are known
        self._last = max(map(int, (path.name for path in self._folders())), default=0)

    def save(self, snapshot: Snapshot, description: dict[str, Any]) -> None:
        """Adds a checkpoint, and removes those that are older than the last two of each trial.

        Raises:
          OSError: if it cannot be written; earlier ones stay as they are.
        """
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.glob(".partial*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A unique name: after a failed write, threads may still be writing under the earlier one.
        temporary, new = self.folder / f".partial_{time.time_ns()}", self.folder / f"{self._last + 1:06}"
        try:
            temporary.mkdir()
            write_whole(temporary / CONFIG, json.dumps(description).encode())
            _write_arrays(temporary / ARRAYS, _to_tree(snapshot))
            seal(temporary)
            temporary.rename(new)
            to_disk(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._last += 1
        self._trials[new] = set(trial_keys(snapshot.trials))
        self._remove_older()

    def load(
        self, check: Callable[[Snapshot], None], warn: Callable[[str], None], *, trial: tuple | None = None
    ) -> Iterator[Checkpoint]:
        """Reads the checkpoints, the latest first, and warns of each that is damaged.

        Args:
          check: raises an exception for a snapshot, with shapes in place of arrays, that the sweep cannot restore.
            It is called before any memory is taken for the arrays.
          warn: is called with one line for each damaged checkpoint.
          trial: skips checkpoints known not to contain the trial of this key.
        """
        for folder in reversed(self._folders()):
            if trial and trial not in self._trials.get(folder, {trial}):
                continue
            try:
                check_sealed(folder)
                description = json.loads((folder / CONFIG).read_bytes())
                snapshot = _read_arrays(folder / ARRAYS, check)
            except Exception as error:  # whatever the parsers of JSON and Orbax stumble on
                warn(f"{folder} is left out: {reason(error)}")
                continue
            self._trials[folder] = set(trial_keys(snapshot.trials))
            yield Checkpoint(snapshot, description)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]" * 6) if path.is_dir())

    def _remove_older(self) -> None:
        newer: dict[tuple, int] = {}
        for folder in sorted(self._trials, reverse=True):
            if all(newer.get(trial, 0) >= KEEP_PER_TRIAL for trial in self._trials[folder]):
                _remove(folder)
                del self._trials[folder]
                continue
            for trial in self._trials[folder]:
                newer[trial] = newer.get(trial, 0) + 1


def _to_tree(snapshot: Snapshot) -> dict[str, Any]:
    return snapshot._asdict() | {"trials": snapshot.trials._asdict()}


def _to_snapshot(tree: dict[str, Any]) -> Snapshot:
    if "split" in tree["trials"]:
        tree = _from_version_0_1(tree)
    trials = Trial(**tree["trials"])
    return Snapshot(**tree | {"trials": _with_defaults(trials), "test": tree.get("test")})


def _with_defaults(trials: Trial) -> Trial:
    """Adds the hyperparameters that l2jax did not have yet when the checkpoint was written."""
    like = trials.hyperparameters["l2"]
    in_shapes = isinstance(like, jax.ShapeDtypeStruct)
    defaults = {
        name: like if in_shapes else np.full_like(like, getattr(SweepConfig, name)[0]) for name in HYPERPARAMETERS
    }
    return trials._replace(hyperparameters=defaults | trials.hyperparameters)


def _from_version_0_1(tree: dict[str, Any]) -> dict[str, Any]:
    """Translates the tree of a checkpoint that version 0.1 wrote."""
    hyperparameters = dict(tree["trials"])
    seed, split_index = hyperparameters.pop("seed"), hyperparameters.pop("split")
    metrics = {RENAMED.get(name, name): values for name, values in tree["metrics"].items()}
    test = tree.get("tested")
    if test:
        layers = list(test["magnitudes"].values())
        shape = (*layers[0].shape[:1], len(layers), *layers[0].shape[1:])
        in_shapes = isinstance(layers[0], jax.ShapeDtypeStruct)
        magnitudes = jax.ShapeDtypeStruct(shape, layers[0].dtype) if in_shapes else np.stack(layers, axis=1)
        test = {"test_loss": test["loss"], "test_accuracy": test["accuracy"], "kernel_magnitudes": magnitudes}
    return {
        "trials": {"hyperparameters": hyperparameters, "seed": seed, "split_index": split_index},
        "metrics": metrics,
        "seconds": tree["seconds"],
        "test": test,
        "state": tree["state"],
    }


def _write_arrays(folder: Path, tree: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    with _silent(), _plain_name(folder) as folder:
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(folder, args=ocp.args.StandardSave(tree))
        except OSError:
            raise
        except Exception as error:  # TensorStore reports a full disk as a ValueError
            number = int(code[1]) if (code := re.search(r"os_error_code='(\d+)'", str(error))) else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def _read_arrays(folder: Path, check: Callable[[Snapshot], None]) -> Snapshot:
    import orbax.checkpoint as ocp

    with _silent(), _plain_name(folder) as folder, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        shapes = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype),
            checkpointer.metadata(folder).item_metadata.tree,
        )
        check(_to_snapshot(shapes))
        return _to_snapshot(checkpointer.restore(folder, args=ocp.args.StandardRestore()))


@contextlib.contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """The folder under a name that Orbax understands.

    It takes a path for a pattern, for an address such as "gs:", and for UTF-8. A folder whose path could pass for
    something else is reached through a link in the folder for temporary files.
    """
    folder = folder.absolute()
    if re.fullmatch(r"[\w./ -]*", folder.as_posix().removeprefix(folder.drive)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as links:
        link = Path(links, "link")
        link.symlink_to(folder.parent, target_is_directory=True)
        yield link / folder.name


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps Orbax and asyncio from printing errors that are reported in one line later.

    Orbax logs through absl what it raises as well. Its event loop, closed after an error, complains when it is
    collected, as an exception that cannot be raised.
    """
    logger, usual_hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual_hook(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except BaseException:
        raise  # leave the hook installed: abandoned writer threads still raise later
    else:
        sys.unraisablehook = usual_hook
    finally:
        logger.setLevel(level)


def _remove(folder: Path) -> None:
    """Removes a checkpoint: renames it first, so that it is never found in parts."""
    removed = folder.with_name(".old")
    shutil.rmtree(removed, ignore_errors=True)
    with contextlib.suppress(OSError):  # an old checkpoint may stay
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
