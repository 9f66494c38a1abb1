"""A checkpoint: what a sweep needs to continue with some of its trials, in a folder that shows if it is damaged."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from l2jax.atomic import check_sealed, seal, write_whole
from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.engine.snapshot import Snapshot
from l2jax.results.files import CONFIG
from l2jax.results.metrics import RENAMED
from l2jax.trial.train import Trial

# Orbax takes a second to import, so it is imported only where a checkpoint is written or read.

ARRAYS = "arrays"


class Checkpoint(NamedTuple):
    """A checkpoint as it is read.

    Attributes:
      snapshot: of trials that trained together.
      description: of the sweep, as in the run's config.json.
    """

    snapshot: Snapshot
    description: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint into a new folder: the arrays as Orbax does it, the description, and checksums of all files.

    Raises:
      OSError: if it cannot be written.
    """
    folder.mkdir()
    write_whole(folder / CONFIG, json.dumps(checkpoint.description).encode())
    _write_arrays(folder / ARRAYS, _to_tree(checkpoint.snapshot))
    seal(folder)


def read_checkpoint(folder: Path, check: Callable[[Snapshot], None]) -> Checkpoint:
    """Reads a checkpoint.

    Args:
      check: raises an exception for a snapshot, with shapes in place of arrays, that the sweep cannot restore.
        It is called before any memory is taken for the arrays.

    Raises:
      Exception: of any type for a damaged checkpoint: whatever the parsers of JSON and Orbax stumble on.
    """
    check_sealed(folder)
    description = json.loads((folder / CONFIG).read_bytes())
    return Checkpoint(_read_arrays(folder / ARRAYS, check), description)


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
