"""A run among other processes: its folder is its own, and it ends in good order when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2jax.errors import InvalidInputError


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from the folder. The system drops the lock of a process that ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    lock = run_dir / ".lock"
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            accepted = f"a run folder that no other process uses; process {file.read(20).strip()} does"
            raise InvalidInputError("resume", run_dir, accepted) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a folder with something in it stays
                if [path.name for path in run_dir.iterdir()] == [lock.name]:
                    lock.unlink()
                    run_dir.rmdir()


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Gives a list that the first Ctrl-C or SIGTERM adds its number to; the second one interrupts as usual."""
    asked: list[int] = []

    def on_first(number: int, _: object) -> None:
        asked.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)
        # Straight to the file: a print that this came in the middle of could not stand another one.
        os.write(2, b"\nstopping after this epoch (once more: at once)\n")

    usual: dict[int, Any] = {number: signal.signal(number, on_first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
