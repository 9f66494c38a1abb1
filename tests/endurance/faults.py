"""Lets each write of a run fail in turn, in Python and in the libraries beneath, and looks at what is left.

    python tests/endurance/faults.py --every 1

Creating, writing, synchronising and renaming files and folders fails, at the n-th call alone (a passing error) and from
the n-th call on (a disk that stays full), for all n. After each, what was written before must be intact, and the run
must go on to the undisturbed result. It takes a C compiler, and Linux or another system with LD_PRELOAD.
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
        asked = {
            "PYTHONPATH": PATHS,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "LD_PRELOAD": str(library),
        }
        words = [sys.executable, __file__, "--child", "--every", str(every), "--what", what]
        return subprocess.run(words, env=os.environ | asked, capture_output=True, text=True)


def in_turn(every: int, folder: Path, act, look) -> Counter:
    """Calls `act` with each of its writes failing in turn, and then `look` with what `act` returned or raised.

    Returns what came of the writes that failed: the error, or what `act` returned.
    """
    library, failed = ctypes.CDLL(os.environ["LD_PRELOAD"]), Counter()
    for stays in (False, True):
        number = 1 + every * stays // 2
        while True:
            library.fail_calls(os.fsencode(folder), ctypes.c_long(number), ctypes.c_long(ALWAYS if stays else number))
            try:
                came = act()
            except OSError as error:
                came = error
            finally:
                calls = library.calls_so_far()
                library.fail_calls(b"", ctypes.c_long(0), ctypes.c_long(0))
            look(came)
            if calls < number:
                break
            failed[str(came)[-60:]] += 1
            number += every
    return failed


def checkpoints(every: int, folder: Path) -> Counter:
    """Of a checkpoint, the last good one is always left, whole."""
    from helpers import tiny_run

    from l2jax.run.checkpoint import Checkpoints

    sweep = tiny_run.sweep()
    progress = []
    for record in sweep.epochs():
        progress.append(sweep.snapshot())
        if record.number == 3:
            break

    def act():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        saved.clear()
        written = Checkpoints(folder)
        for each in progress:
            written.save(each, sweep.description())
            saved.append(each)

    def look(came):
        warned: list[str] = []
        found = [found for found, _ in Checkpoints(folder).load(sweep.check_snapshot, warned.append)]
        assert not warned, warned
        # One whose last step failed, that of the folder's name to the disk, may be there.
        assert len(saved) == 3 or isinstance(came, OSError)
        newest = {len(each.seconds): each for each in found}
        assert max(newest, default=0) in (len(saved), len(saved) + 1)
        for number, each in newest.items():
            assert same(each, progress[number - 1])
        Checkpoints(folder).save(progress[0], sweep.description())

    saved: list = []
    return in_turn(every, folder, act, look)


def run(every: int, folder: Path) -> Counter:
    """A run ends with one line, or as if nothing had happened, and can go on."""
    from helpers import tiny_run

    import l2jax

    undisturbed = folder.with_name("undisturbed")
    assert tiny_run.run(undisturbed) == 0
    expected = l2jax.load_results(undisturbed).data

    def act():
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.redirect_stderr(told):
            try:
                return tiny_run.run(folder)
            except l2jax.InputError as error:  # the folder cannot be made: the command tells it so
                print(error, file=told)
                return 2

    def look(came):
        lines = told.getvalue().splitlines()
        told.seek(0)
        told.truncate()
        assert came in (0, 1, 2), came
        assert len(lines) == (came > 0), lines
        ended.update(line.partition(": ")[2].replace(str(folder), "DIR") for line in lines)
        if (folder / "results.nc").exists():
            assert l2jax.load_results(folder).data.identical(expected)
        if (folder / "config.json").exists():
            assert tiny_run.run(folder, resume=True) == 0
            assert l2jax.load_results(folder).data.identical(expected)
            assert (folder / "metrics.jsonl").read_text().count('"epoch"') == 6
            assert same(dict(np.load(folder / "best_params.npz")), dict(np.load(undisturbed / "best_params.npz")))

    told, ended = io.StringIO(), Counter()
    in_turn(every, folder, act, look)
    return ended


def same(a, b) -> bool:
    import jax

    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="1: all calls; 7: every seventh")
    parser.add_argument("--what", choices=("checkpoints", "run"), default="run")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if not options.child:
        finished = start(options.every, options.what)
        sys.exit(finished.stdout + finished.stderr if finished.returncode else print(finished.stdout, end=""))
    sys.path[:0] = PATHS.split(os.pathsep)
    from helpers import tiny_run

    with tiny_run.compiled_quickly(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "run"
        folder.mkdir()
        failed = {"checkpoints": checkpoints, "run": run}[options.what](options.every, folder)
    print(f"writes failed: {failed.total()}", *failed.most_common(), sep="\n")
