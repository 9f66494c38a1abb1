"""Damaged checkpoints: they are left out with a warning, and their epochs are trained again."""

import random
import shutil

import numpy as np
import pytest
from helpers import tiny_run
from helpers.damage import HARMFUL, assert_nothing_was_executed, damage, list_files

import l2jax
from l2jax.atomic import seal
from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.folders import Folders

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize("times", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_epochs_of_damaged_checkpoints_are_trained_again(times, finished_run, tmp_path):
    expected, rng, warnings = l2jax.load_results(finished_run).data, random.Random(2), []
    for number in range(times):
        folder = tmp_path / str(number)
        shutil.copytree(finished_run / "checkpoints", folder / "checkpoints")
        for _ in range(rng.choice([1, 1, 2, 5])):
            damage(rng.choice(list_files(folder / "checkpoints")), rng)
        sweep, before = tiny_run.sweep(), len(warnings)
        for snapshot, _ in Checkpoints(Folders(folder / "checkpoints")).load(sweep.check_snapshot, warnings.append):
            sweep.restore(snapshot)
        assert len(warnings) > before
        for _ in sweep.epochs():
            pass
        assert sweep.results().data.identical(expected)
        shutil.rmtree(folder)
    assert not any("\n" in line for line in warnings)


def test_arrays_too_large_for_the_sweep_take_no_memory(finished_run, tmp_path):
    """The shapes that a checkpoint claims are a million times too large, with correct checksums."""
    shutil.copytree(finished_run, tmp_path / "run")
    (newest,) = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]
    snapshot, description = next(Checkpoints(Folders(finished_run / "checkpoints")).load(lambda _: None, pytest.fail))
    huge = snapshot._replace(state={name: np.zeros((10**7,), np.uint8) for name in snapshot.state})
    Checkpoints(Folders(tmp_path / "run" / "checkpoints")).save(Checkpoint(huge, description))
    warnings: list[str] = []
    checks = []

    def check(shapes):
        checks.append(shapes)
        assert all(not isinstance(leaf, np.ndarray) for leaf in shapes.state.values())
        tiny_run.sweep().check_snapshot(shapes)

    loaded = next(Checkpoints(Folders(tmp_path / "run" / "checkpoints")).load(check, warnings.append))
    assert [line.rpartition(": ")[2] for line in warnings] == ["the state of another network or optimizer"]
    assert len(checks) == 2 and loaded.snapshot.metrics.keys() == snapshot.metrics.keys()
    assert newest.exists()


def test_loading_checkpoints_executes_nothing(finished_run, tmp_path, monkeypatch):
    """Every file is a pickle, with correct checksums."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run / "checkpoints", tmp_path / "checkpoints")
    for path in list_files(tmp_path / "checkpoints"):
        path.write_bytes(HARMFUL)
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / "SHA256SUMS").unlink()
        seal(folder)
    sweep, warnings = tiny_run.sweep(), []
    assert not list(Checkpoints(Folders(tmp_path / "checkpoints")).load(sweep.check_snapshot, warnings.append))
    assert len(warnings) == 4
    assert_nothing_was_executed()


def test_the_command_says_which_checkpoint_is_damaged(finished_run, tmp_path, capfd):
    shutil.copytree(finished_run, tmp_path / "run")
    (newest,) = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]
    (newest / "config.json").write_text("{")
    assert tiny_run.run(tmp_path / "run", resume=True, quiet=False) == 0
    assert f"warning: {newest} is left out: " in capfd.readouterr().err
    assert l2jax.load_results(tmp_path / "run").data.identical(l2jax.load_results(finished_run).data)
