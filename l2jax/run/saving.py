"""What a run leaves in its folder when it ends: results first, then every other file that can be written."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from l2jax import plot
from l2jax.atomic import write_whole
from l2jax.engine.sweep import Sweep
from l2jax.errors import reason
from l2jax.plot.style import own_style
from l2jax.report.page import write_report
from l2jax.results.parameters import ALL, BEST
from l2jax.results.results import Results
from l2jax.run.options import RunOptions
from l2jax.run.parameters import FindCheckpoints, params_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(
    results: Results, sweep: Sweep, *, run_dir: Path, options: RunOptions, find_checkpoints: FindCheckpoints
) -> list[str]:
    """Saves the results, and then every other file whether or not one fails: returns those that do, and why.

    Raises:
      OSError: if the results cannot be written.
    """
    failed = list[str]()
    keep_all = options.keep == "all" or (run_dir / ALL).exists()
    for name in (BEST, ALL):  # beside new results nobody could tell whose parameters the old files hold
        (run_dir / name).unlink(missing_ok=True)
    results.save(run_dir)

    def attempt(name: str, write: Callable[[Path], object]) -> None:
        try:
            write(run_dir / name)
        except Exception as error:  # of any library that has a part in it
            failed.append(f"{name} ({reason(error)})")

    kept = {"best", "all"} if keep_all else {"best"}
    try:
        results.best_trial()
    except ValueError:  # no trial has finished without diverging
        kept.discard("best")
    for keep in kept:
        attempt(
            f"{keep}_params.npz",
            lambda path, keep=keep: write_whole(path, params_file(keep, results, sweep, find_checkpoints)),
        )
    for name, draw in plot.drawings(results).items():
        for file_format in {"png", options.figures}:
            attempt(f"{name}.{file_format}", lambda path, draw=draw: _write_figure(draw, path))
    attempt("report.html", lambda path: write_report({str(run_dir): results}, path))
    return failed


def _write_figure(draw: Callable[[], Figure], path: Path) -> None:
    content = io.BytesIO()
    with own_style():
        draw().savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, content.getvalue())
