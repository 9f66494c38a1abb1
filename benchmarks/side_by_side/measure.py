"""The measurement: peers start, warm up, and take turns."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from side_by_side.compare import flops_per_example
from side_by_side.peers import Peer
from side_by_side.processes import PeerFailed, PeerProcesses
from side_by_side.record import Row

BEGIN = time.monotonic()


def measure(
    peers: Sequence[Peer], data: Path, *, examples: int, warm_up: int, starts_at_once: int = 1
) -> dict[Peer, Row]:
    """Starts and warms up all peers, then lets them train in turns.

    Args:
      peers: in the order of their turns.
      data: an .npz file as `peers.peer.Job` describes it.
      examples: how many it holds.
      warm_up: epochs before the rounds.
      starts_at_once: peers that start at the same time.
    """
    rows = {peer: Row(peer.name, peer.num_trials) for peer in peers}
    for peer, row in rows.items():
        if missing := peer.missing():
            row.skipped = f"{' and '.join(missing)} not installed"
            log(f"{peer.name}: skipped, {row.skipped}")
    with contextlib.ExitStack() as stack:
        processes: dict[Peer, PeerProcesses] = {}

        def start(peer: Peer) -> None:
            log(f"{peer.name}: start and warm-up")
            begin = time.perf_counter()
            processes[peer] = stack.enter_context(PeerProcesses(peer, data))
            _warm_up(peer, processes[peer], rows[peer], begin=begin, epochs=warm_up)

        with ThreadPoolExecutor(starts_at_once) as threads:
            list(threads.map(start, [peer for peer, row in rows.items() if not row.skipped]))
        for number in range(max(peer.rounds for peer in peers)):
            log(f"round {number + 1}")
            for peer, row in rows.items():
                if number < peer.rounds and not (row.skipped or row.failed):
                    _train(peer, processes[peer], row, examples)
    return rows


def _warm_up(peer: Peer, processes: PeerProcesses, row: Row, *, begin: float, epochs: int) -> None:
    with _recorded_failure(row):
        answer = processes.ask("train 1")
        row.start_seconds = time.perf_counter() - begin
        row.compile_seconds = answer.get("compile_seconds")
        if epochs > 1:
            processes.ask(f"train {epochs - 1}")
        if peer.num_trials > 1:  # the loss of one trial is too noisy to compare
            row.losses = processes.ask("losses")["losses"]


def _train(peer: Peer, processes: PeerProcesses, row: Row, examples: int) -> None:
    """Trains for one round."""
    with _recorded_failure(row):
        answer = processes.ask(f"train {peer.epochs}")
        row.peak_memory = answer["peak_memory"]
        row.step_bytes, row.copy_rate = answer.get("step_bytes"), answer.get("copy_rate")
        if "flops_per_second" in answer:
            row.rates.append(answer["flops_per_second"] / flops_per_example())
        else:
            row.rates.append(peer.num_trials * peer.epochs * examples / answer["seconds"])


@contextlib.contextmanager
def _recorded_failure(row: Row) -> Iterator[None]:
    try:
        yield
    except PeerFailed as error:
        row.failed = str(error)
        log(f"{row.name}: failed, {error}")


def log(message: str) -> None:
    """Writes a line to stderr with the seconds since the start, in one piece, as several threads write."""
    sys.stderr.write(f"{time.monotonic() - BEGIN:4.0f} s  {message}\n")
