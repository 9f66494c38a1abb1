"""The peers as processes: started, told what to do, ended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.peer import Job, cores

PEERS = Path(__file__).parent / "peers"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way to train, and how much it is given to train."""

    name: str
    script: str
    """A file in peers/, without its ending, or a path."""
    strengths: Sequence[float]
    seeds: int
    epochs: int
    """In a round."""
    rounds: int
    needs: tuple[str, ...] = ()
    """Packages that may not be installed."""
    variant: str = ""
    process_a_core: bool = False
    """The trials are divided among processes, one a core and each with one thread."""

    @property
    def num_trials(self) -> int:
        return len(self.strengths) * self.seeds

    def missing(self) -> list[str]:
        """Those of its needs that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


class PeerFailed(Exception):
    """A peer ended before it answered; holds the last line that it wrote to stderr."""


class Running:
    """The processes of a peer; a context, at the end of which they end."""

    def __init__(self, peer: Peer, data: Path):
        self._peer, self._processes = peer, []
        self._errors = tempfile.TemporaryFile("a+")  # noqa: SIM115 (closed by __exit__)
        places = [[core] for core in cores()] if peer.process_a_core else [cores()]
        for n, place in enumerate(places):
            seeds = len(range(n, peer.seeds, len(places)))
            if seeds:
                job = Job(str(data), list(peer.strengths), seeds, peer.variant)
                self._processes.append(self._start(peer.script, job, place))

    def ask(self, command: str) -> dict[str, Any]:
        """Sends a command to all processes at the same time and waits until all have answered.

        Returns:
          One answer for all: the longest `seconds`, the sum of `peak_memory`, the `losses` (strengths, seeds).

        Raises:
          PeerFailed: if a process ends instead.
        """
        with contextlib.suppress(BrokenPipeError):  # who has ended does not answer either
            for process in self._processes:
                process.stdin.write(f"{command}\n")
                process.stdin.flush()
        answers = [self._answer(process) for process in self._processes]
        together = {"peak_memory": sum, "losses": self._by_strength}
        return {name: together.get(name, max)([answer[name] for answer in answers]) for name in answers[0]}

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._errors.close()

    def _start(self, script: str, job: Job, place: list[int]) -> subprocess.Popen[str]:
        command = [sys.executable, str(PEERS / f"{script}.py"), json.dumps(dataclasses.asdict(job))]
        pipe = subprocess.PIPE
        with _on_cores(place):
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def _by_strength(self, losses: list[list[float]]) -> list[list[float]]:
        num_strengths = len(self._peer.strengths)
        return np.concatenate([np.reshape(part, (num_strengths, -1)) for part in losses], axis=1).tolist()

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        for line in process.stdout or ():
            if line.startswith("{"):  # libraries print as they please
                return json.loads(line)
        self._errors.seek(0)
        *_, reason = ["no word of why", *filter(str.strip, self._errors)]
        raise PeerFailed(reason.strip())


@contextlib.contextmanager
def _on_cores(numbers: list[int]) -> Iterator[None]:
    """Processes started in here use these cores only; libraries count them to choose their number of threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
