"""Damaged run folders: an error of one line or the right results, and nothing else."""

import random
import shutil
import tracemalloc

import pytest
from helpers.damage import HARMFUL, assert_nothing_was_executed, damage, list_files

import l2jax
from l2jax.errors import InputError
from l2jax.results.files import read_config


@pytest.mark.parametrize("times", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_results_are_an_error_or_the_right_ones(times, finished_run, tmp_path):
    expected, rng, errors = l2jax.load_results(finished_run), random.Random(0), 0
    for name in ("config.json", "results.nc", "SHA256SUMS"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    for _ in range(times):
        path = rng.choice(list_files(tmp_path))
        content = path.read_bytes()
        damage(path, rng)
        try:
            assert l2jax.load_results(tmp_path) == expected
        except InputError as error:
            assert "damaged" in str(error)
            errors += 1
        path.write_bytes(content)
    assert errors == times


def test_damage_without_checksums_is_an_error_or_results(finished_run, tmp_path):
    """Older versions wrote no checksums. Wrong values go unnoticed; anything worse is an error of one line."""
    rng = random.Random(1)
    for name in ("config.json", "results.nc"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    for _ in range(60):
        path = rng.choice(list_files(tmp_path))
        content = path.read_bytes()
        damage(path, rng)
        try:
            l2jax.load_results(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
        path.write_bytes(content)


def test_results_that_claim_to_be_huge_take_no_memory(finished_run, tmp_path):
    """Each number in the head of the file, all sizes among them, in turn becomes the largest possible one."""
    (tmp_path / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    content = (finished_run / "results.nc").read_bytes()
    errors = 0
    tracemalloc.start()
    try:
        for place in range(4, 400, 8):
            (tmp_path / "results.nc").write_bytes(content[:place] + b"\x7f\xff\xff\xff" + content[place + 4 :])
            try:
                l2jax.load_results(tmp_path)
            except InputError:
                errors += 1
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert errors > 20


def test_loading_results_executes_nothing(finished_run, tmp_path, monkeypatch):
    """Every file of the folder is a pickle, and has no checksum."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    for path in list_files(tmp_path / "run"):
        path.write_bytes(HARMFUL)
    for read in (l2jax.load_results, read_config):
        with pytest.raises(InputError):
            read(tmp_path / "run")
    assert_nothing_was_executed()
