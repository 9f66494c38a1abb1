"""Checkpoints: what a sweep needs to go on after any end, in the folder of its run. Written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from l2jax.atomic import check_sealed, seal, to_disk, write_whole
from l2jax.engine.snapshot import Progress, tuples_of
from l2jax.errors import reason
from l2jax.results.files import CONFIG
from l2jax.results.metrics import RENAMED
from l2jax.trial.train import Evaluation, Trial

# Orbax takes a second to import: what is not checkpointed need not wait for it.

ARRAYS = "arrays"
KEPT = 2
"""Of the same trials. The one before the last is for when the last is damaged."""


class Checkpoint(NamedTuple):
    progress: Progress
    description: dict[str, Any]
    """Of the sweep, as in the run's config.json."""


class Checkpoints:
    """Those of one run: numbered folders, each with the progress of trials that were trained together.

    A folder holds the arrays as Orbax writes them, a description of the sweep, and checksums of all its files.
    """

    def __init__(self, run_dir: Path):
        self.folder = run_dir / "checkpoints"
        self._holds: dict[Path, set[tuple]] = {}
        self._last = max(map(int, (path.name for path in self._numbered())), default=0)

    def save(self, progress: Progress, description: dict[str, Any]) -> None:
        """Adds a checkpoint, and removes what is older than the last two of each trial.

        Raises:
          OSError: where it cannot be written; those before it stay as they are.
        """
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.glob(".partial*"):
            shutil.rmtree(left, ignore_errors=True)
        # Of a name of its own: where a write has failed, others of its kind may still be under way in threads.
        beside, new = self.folder / f".partial_{time.time_ns()}", self.folder / f"{self._last + 1:06}"
        try:
            beside.mkdir()
            write_whole(beside / CONFIG, json.dumps(description).encode())
            _write_arrays(beside / ARRAYS, _as_tree(progress))
            seal(beside)
            beside.rename(new)
            to_disk(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._last += 1
        self._holds[new] = set(tuples_of(progress.trials))
        self._remove_older()

    def load(
        self, check: Callable[[Progress], None], warn: Callable[[str], None], trial: tuple | None = None
    ) -> Iterator[Checkpoint]:
        """Reads the checkpoints, the last one first, and warns of each that is damaged.

        Args:
          check: raises an exception for progress, with shapes in place of arrays, that the sweep cannot take over; no
            memory has been taken for the arrays yet.
          warn: is told of the damaged ones, a line each.
          trial: leaves out those that are known not to hold it.
        """
        for folder in reversed(self._numbered()):
            if trial and trial not in self._holds.get(folder, {trial}):
                continue
            try:
                check_sealed(folder)
                description = json.loads((folder / CONFIG).read_bytes())
                progress = _read_arrays(folder / ARRAYS, check)
            except Exception as error:  # whatever the parsers of JSON and Orbax stumble on
                warn(f"{folder} is left out: {reason(error)}")
                continue
            self._holds[folder] = set(tuples_of(progress.trials))
            yield Checkpoint(progress, description)

    def _numbered(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]" * 6) if path.is_dir())

    def _remove_older(self) -> None:
        times: dict[tuple, int] = {}
        for folder in sorted(self._holds, reverse=True):
            if all(times.get(trial, 0) >= KEPT for trial in self._holds[folder]):
                _remove(folder)
                del self._holds[folder]
                continue
            for trial in self._holds[folder]:
                times[trial] = times.get(trial, 0) + 1


def _as_tree(progress: Progress) -> dict[str, Any]:
    tree = progress._asdict() | {"trials": progress.trials._asdict()}
    return tree | {"tested": progress.tested and progress.tested._asdict()}


def _as_progress(tree: dict[str, Any]) -> Progress:
    tested = tree.get("tested")
    metrics = {RENAMED.get(name, name): values for name, values in tree["metrics"].items()}  # of an older version
    trials = Trial(**tree["trials"])
    return Progress(**tree | {"trials": trials, "metrics": metrics, "tested": tested and Evaluation(**tested)})


def _write_arrays(folder: Path, tree: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    with _silent():
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(folder.absolute(), args=ocp.args.StandardSave(tree))
        except OSError:
            raise
        except Exception as error:  # those of the library beneath, which says ValueError to a full disk
            number = int(code[1]) if (code := re.search(r"os_error_code='(\d+)'", str(error))) else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def _read_arrays(folder: Path, check: Callable[[Progress], None]) -> Progress:
    import orbax.checkpoint as ocp

    with _silent(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        folder = folder.absolute()
        shapes = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype),
            checkpointer.metadata(folder).item_metadata.tree,
        )
        check(_as_progress(shapes))
        return _as_progress(checkpointer.restore(folder, args=ocp.args.StandardRestore()))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the libraries from printing what is told in one line later."""
    logger, usual_hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)

    def hook(raised: Any) -> None:
        if str(raised.exc_value) != "Event loop is closed":
            usual_hook(raised)

    sys.unraisablehook = hook
    try:
        yield
    except BaseException:
        raise  # with the hook left: writes under way in other threads complain later that nobody waits for them
    else:
        sys.unraisablehook = usual_hook
    finally:
        logger.setLevel(level)


def _remove(folder: Path) -> None:
    """Removes a checkpoint: first from its name, so that it is never found in parts."""
    removed = folder.with_name(".old")
    shutil.rmtree(removed, ignore_errors=True)
    with contextlib.suppress(OSError):  # an old one may stay
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
