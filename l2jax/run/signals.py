"""Ctrl-C, SIGTERM and a terminal that is closed: the first signal ends a run in good order, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list to which the first SIGINT, SIGTERM or SIGHUP is appended; a second one interrupts as usual.

    SIGHUP stays ignored where it is, as under `nohup`.

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
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, b"\nstopping after this epoch (once more: at once)\n")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        numbers.append(signal.SIGHUP)
    usual: dict[int, Any] = {number: signal.signal(number, on_first) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
