"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list to which the first SIGINT or SIGTERM is appended; a second one interrupts as usual.

    Only the main thread of a process can hear them. In any other, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def on_first(number: int, _: object) -> None:
        received.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)
        # os.write, because print is not reentrant and the signal may arrive inside one.
        os.write(2, b"\nstopping after this epoch (once more: at once)\n")

    usual: dict[int, Any] = {number: signal.signal(number, on_first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
