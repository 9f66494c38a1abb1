"""Lets each write of a run fail in turn, in Python and in the libraries beneath, and checks what is left.

    python tests/endurance/faults.py --every 1

Creating, writing, synchronising and renaming files and folders fails, at the n-th call alone (a passing error) and from
the n-th call on (a disk that stays full), for all n. After each failure, everything written before must be intact, and
the run must go on to the undisturbed result. This needs a C compiler, and Linux or another system with LD_PRELOAD.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
ALWAYS = 2**62


def start(every: int, what: str) -> subprocess.CompletedProcess:
    """Runs this file in a process whose writes can be made to fail."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "faults.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, Path(__file__).with_suffix(".c"), "-ldl"], check=True)
        environment = {
            "PYTHONPATH": PATHS,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "LD_PRELOAD": str(library),
        }
        words = [sys.executable, __file__, "--child", "--every", str(every), "--what", what]
        return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True)


def fail_in_turn(every: int, folder: Path, act, check) -> Counter:
    """Calls `act` with each of its writes failing in turn, and after each call `check`.

    Args:
      every: 1 lets all writes fail, 7 every seventh.
      folder: writes into this folder fail.
      act: the function that writes.
      check: gets what `act` returned, or the OSError that it raised.

    Returns:
      The number of failures by their outcome: the error, or what `act` returned.
    """
    library, outcomes = ctypes.CDLL(os.environ["LD_PRELOAD"]), Counter()
    for is_permanent in (False, True):
        number = 1 + every * is_permanent // 2
        while True:
            library.fail_calls(
                os.fsencode(folder), ctypes.c_long(number), ctypes.c_long(ALWAYS if is_permanent else number)
            )
            try:
                outcome = act()
            except OSError as error:
                outcome = error
            finally:
                calls = library.calls_so_far()
                library.fail_calls(b"", ctypes.c_long(0), ctypes.c_long(0))
            check(outcome)
            if calls < number:
                break
            outcomes[str(outcome)[-60:]] += 1
            number += every
    return outcomes


def checkpoints(every: int, folder: Path) -> Counter:
    """The last complete checkpoint always stays."""
    from helpers import tiny_run

    from l2jax.checkpoint.checkpoint import Checkpoint
    from l2jax.checkpoint.checkpoints import Checkpoints
    from l2jax.checkpoint.folders import Folders

    sweep = tiny_run.sweep()
    snapshots = []
    for record in sweep.epochs():
        snapshots.append(sweep.snapshot())
        if record.number == 3:
            break

    def act():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        saved.clear()
        written = Checkpoints(Folders(folder / "checkpoints"))
        for snapshot in snapshots:
            written.save(Checkpoint(snapshot, sweep.description()))
            saved.append(snapshot)

    def check(outcome):
        warnings: list[str] = []
        now = Checkpoints(Folders(folder / "checkpoints"))
        loaded = [snapshot for snapshot, _ in now.load(sweep.check_snapshot, warnings.append)]
        assert not warnings, warnings
        # A checkpoint may be there although its last step failed, which brings the folder's name to the disk.
        assert len(saved) == 3 or isinstance(outcome, OSError)
        newest = {len(snapshot.seconds): snapshot for snapshot in loaded}
        assert max(newest, default=0) in (len(saved), len(saved) + 1)
        for number, snapshot in newest.items():
            assert are_equal(snapshot, snapshots[number - 1])
        now.save(Checkpoint(snapshots[0], sweep.description()))

    saved: list = []
    return fail_in_turn(every, folder, act, check)


def run(every: int, folder: Path) -> Counter:
    """A run ends with an error of one line, or as if nothing had happened, and can be resumed."""
    from helpers import tiny_run

    import l2jax

    undisturbed = folder.with_name("undisturbed")
    assert tiny_run.run(undisturbed) == 0
    expected = l2jax.load_results(undisturbed).data

    def act():
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.redirect_stderr(stderr):
            try:
                return tiny_run.run(folder)
            except l2jax.InputError as error:  # the folder cannot be made; the command prints this
                print(error, file=stderr)
                return 2

    def check(outcome):
        lines = stderr.getvalue().splitlines()
        stderr.seek(0)
        stderr.truncate()
        assert outcome in (0, 1, 2), outcome
        assert len(lines) == (outcome > 0), lines
        messages.update(line.partition(": ")[2].replace(str(folder), "DIR") for line in lines)
        if (folder / "results.nc").exists():
            assert l2jax.load_results(folder).data.identical(expected)
        if (folder / "config.json").exists():
            assert tiny_run.run(folder, resume=True) == 0
            assert l2jax.load_results(folder).data.identical(expected)
            assert (folder / "metrics.jsonl").read_text().count('"epoch"') == 6
            assert are_equal(dict(np.load(folder / "best_params.npz")), dict(np.load(undisturbed / "best_params.npz")))

    stderr, messages = io.StringIO(), Counter()
    fail_in_turn(every, folder, act, check)
    return messages


def are_equal(a, b) -> bool:
    """Compares two trees of arrays; NaN equals NaN."""
    import jax

    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="1 lets all calls fail, 7 every seventh")
    parser.add_argument("--what", choices=("checkpoints", "run"), default="run")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if not options.child:
        process = start(options.every, options.what)
        sys.exit(process.stdout + process.stderr if process.returncode else print(process.stdout, end=""))
    sys.path[:0] = PATHS.split(os.pathsep)
    from helpers import tiny_run

    with tiny_run.compiled_quickly(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "run"
        folder.mkdir()
        outcomes = {"checkpoints": checkpoints, "run": run}[options.what](options.every, folder)
    print(f"writes failed: {outcomes.total()}", *outcomes.most_common(), sep="\n")
