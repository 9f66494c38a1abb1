"""A lock on a run folder, so that two processes never write into the same one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from l2jax.errors import InvalidInputError


@contextlib.contextmanager
def locked(run_dir: Path, option: str = "run_dir") -> Iterator[None]:
    """Locks the folder for this process. The system drops the lock when the process ends, however it ends.

    A folder in which nothing was written is removed.

    Args:
      option: that names the folder, for errors.

    Raises:
      InputError: if another process holds the lock.
    """
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
            raise InvalidInputError(option, run_dir, accepted) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if [path.name for path in run_dir.iterdir()] == [lock.name]:
                    lock.unlink()
                    run_dir.rmdir()
