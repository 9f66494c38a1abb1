"""The peers as processes: started, given commands, ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers.peer import Job, cores

from side_by_side.peers import Peer

SCRIPTS = Path(__file__).parents[1] / "peers"


class PeerFailed(Exception):
    """A peer ended before it answered; holds the last line that it wrote to stderr."""


class PeerProcesses:
    """The processes of a peer; a context manager that ends them."""

    def __init__(self, peer: Peer, data: Path):
        self._peer, self._processes = peer, []
        self._errors = tempfile.TemporaryFile("a+")  # noqa: SIM115 (closed by __exit__)
        core_sets = [[core] for core in cores()] if peer.process_per_core else [cores()] * peer.processes
        for n, core_set in enumerate(core_sets):
            seeds = len(range(n, peer.seeds, len(core_sets)))
            if seeds:
                job = Job(str(data), list(peer.strengths), seeds, peer.variant, peer.network)
                self._processes.append(self._start(peer.script, job, core_set))

    def ask(self, command: str) -> dict[str, Any]:
        """Sends a command to all processes at the same time and waits until all have answered.

        Returns:
          One answer for all: the longest `seconds`, the sum of `peak_memory`, the `losses` (strengths, seeds).

        Raises:
          PeerFailed: if a process ends instead.
        """
        with contextlib.suppress(BrokenPipeError):  # a process that has ended is noticed when it does not answer
            for process in self._processes:
                process.stdin.write(f"{command}\n")
                process.stdin.flush()
        answers = [self._answer(process) for process in self._processes]
        merge = {"peak_memory": sum, "losses": self._by_strength}
        return {name: merge.get(name, max)([answer[name] for answer in answers]) for name in answers[0]}

    def __enter__(self) -> PeerProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._errors.close()

    def _start(self, script: str, job: Job, core_set: list[int]) -> subprocess.Popen[str]:
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), json.dumps(dataclasses.asdict(job))]
        pipe = subprocess.PIPE
        with _on_cores(core_set):
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def _by_strength(self, losses: list[list[float]]) -> list[list[float]]:
        num_strengths = len(self._peer.strengths)
        return np.concatenate([np.reshape(part, (num_strengths, -1)) for part in losses], axis=1).tolist()

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        for line in process.stdout or ():
            if line.startswith("{"):  # libraries print lines of their own
                return json.loads(line)
        self._errors.seek(0)
        *_, reason = ["no error message", *filter(str.strip, self._errors)]
        raise PeerFailed(reason.strip())


@contextlib.contextmanager
def _on_cores(numbers: list[int]) -> Iterator[None]:
    """Limits processes that start in this context to these cores; libraries choose their number of threads by it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
