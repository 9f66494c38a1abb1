"""Checkpoints as numbered folders on this machine, such as those in a run folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from l2jax.atomic import to_disk
from l2jax.checkpoint.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from l2jax.engine.snapshot import Snapshot


class Folders:
    """Numbered folders in another one, as `Place` describes them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def numbers(self) -> list[int]:
        return [int(path.name) for path in self.folder.glob("[0-9]" * 6) if path.is_dir()]

    def write(self, number: int, checkpoint: Checkpoint) -> None:
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.glob(".partial*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A unique name: after a failed write, threads may still be writing under the earlier one.
        temporary = self.folder / f".partial_{time.time_ns()}"
        try:
            write_checkpoint(temporary, checkpoint)
            temporary.rename(self._path(number))
            to_disk(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def read(self, number: int, check: Callable[[Snapshot], None]) -> Checkpoint:
        return read_checkpoint(self._path(number), check)

    def remove(self, number: int) -> None:
        removed = self.folder / ".old"  # renamed first, so that a checkpoint is never found in parts
        shutil.rmtree(removed, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._path(number).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def name(self, number: int) -> str:
        return str(self._path(number))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}"
