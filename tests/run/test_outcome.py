"""What a run leaves at its end: nothing that is finished is lost, whatever fails beside it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from endurance import kill
from helpers import tiny_run

import l2jax
from l2jax.plot import drawings
from l2jax.run import saving, session

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NASTY_NAMES = ["proj [v2]", "a]b[", "back\\slash", "*", "a?b", "{a,b}", "gs:", "s3:", "~", "$HOME", "50%", "a%41", "-x"]
NASTY_NAMES += [
    " a ",
    "a'b\"c",
    "a\nb",
    "a:b",
    "<b>",
    "#1",
    "é 日本",
    "\udcff",
    "x" * 200,
    ".",
    "a.orbax-checkpoint-tmp",
]


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_a_run_folder_may_have_any_name(name, tmp_path, finished_run):
    run_dir = tmp_path / name / "run"
    assert tiny_run.run(run_dir) == 0
    assert tiny_run.run(run_dir, resume=True) == 0
    kill.assert_same_outcome(run_dir, finished_run)
    assert (run_dir / "best_params.npz").read_bytes() == (finished_run / "best_params.npz").read_bytes()


def test_a_folder_that_is_no_unicode_gets_a_report(tmp_path, capfd):
    assert tiny_run.run(tmp_path / "\udcff [v2]", draw=True, quiet=False) == 0
    assert "\\udcff [v2]" in (tmp_path / "\udcff [v2]" / "report.html").read_text()
    assert "\\udcff [v2]" in capfd.readouterr().out


@pytest.mark.parametrize("failing", ["params_file", "a figure", "write_report", "all"])
def test_what_fails_at_the_end_costs_nothing_else(failing, tmp_path, finished_run, monkeypatch, capfd):
    def fail(*_, **__):
        raise RuntimeError("latex could not be found\nand much more")

    files = {"params_file": "best_params.npz", "a figure": "loss_curves.png", "write_report": "report.html"}
    broken = files if failing == "all" else {failing: files[failing]}
    for name in broken.keys() - {"a figure"}:
        monkeypatch.setattr(saving, name, fail)
    draw = {"loss_curves": fail} if "a figure" in broken else {}
    plot = SimpleNamespace(drawings=lambda results: drawings(results) | draw)
    monkeypatch.setattr(saving, "plot", plot)
    monkeypatch.setattr(session, "load_with_progress", lambda *_: tiny_run.dataset())
    monkeypatch.setattr(session, "Sweep", tiny_run.sweep)
    options = session.RunOptions(run_dir=tmp_path / "run", quiet=True)

    assert session.run(tiny_run.CONFIG, options) == 1

    listed = ", ".join(f"{name} (latex could not be found)" for name in broken.values())
    line = f"error: {tmp_path / 'run'}: the results are saved; not written: {listed}\n"
    assert capfd.readouterr() == ("", line)
    assert l2jax.load_results(tmp_path / "run").data.identical(l2jax.load_results(finished_run).data)
    assert (tmp_path / "run" / "validation_curve.png").exists()
    for file in files.values():
        assert (tmp_path / "run" / file).exists() != (file in broken.values()), file


def test_results_that_cannot_be_printed_are_saved(tmp_path, monkeypatch, capfd):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert tiny_run.run(tmp_path / "run", quiet=False) == 1
    *_, line = capfd.readouterr().err.splitlines()
    assert line.endswith("the results are saved; not written: standard output: No space left on device")
    assert l2jax.load_results(tmp_path / "run").data.sizes["epoch"] == 3


@pytest.mark.parametrize("lost", ["full", "closed", "none"])
def test_progress_that_cannot_be_printed_stops_nothing(lost, tmp_path, monkeypatch, finished_run):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        if lost == "closed":
            full.close()
        monkeypatch.setattr(sys, "stderr", None if lost == "none" else full)
        assert tiny_run.run(tmp_path / "run", quiet=False) == 0
    kill.assert_same_outcome(tmp_path / "run", finished_run)


def test_a_terminal_without_unicode_shows_the_results(tmp_path, monkeypatch, capfdbinary):
    with open(1, "w", encoding="ascii", closefd=False) as ascii:
        monkeypatch.setattr(sys, "stdout", ascii)
        assert tiny_run.run(tmp_path / "é", quiet=False) == 0
    out = capfdbinary.readouterr().out.decode("ascii")
    assert "mean over seeds +- standard error" in out and "\\xe9" in out


def test_a_reader_who_leaves_is_no_error(tmp_path, monkeypatch, capfd):
    class Pipe:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        def fileno(self):
            raise OSError

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdout", Pipe())
    assert tiny_run.run(tmp_path / "run", quiet=False) == 0
    assert "error" not in capfd.readouterr().err
