"""Damaged files of parameters, read with NumPy alone, as people read them."""

import io
import random

import numpy as np
import pytest
from helpers.damage import CreatesFile, assert_nothing_was_executed, damage


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_parameters_are_an_error_or_the_right_ones(times, finished_run, tmp_path):
    content, rng = (finished_run / "best_params.npz").read_bytes(), random.Random(3)
    expected = dict(np.load(io.BytesIO(content)))
    for _ in range(times):
        path = tmp_path / "params.npz"
        path.write_bytes(content)
        damage(path, rng)
        try:
            with path.open("rb") as file:
                params = dict(np.load(file, allow_pickle=False))
        except Exception:  # NumPy's and zipfile's own
            continue
        for name in params.keys() & expected.keys():
            np.testing.assert_array_equal(params[name], expected[name])


def test_loading_parameters_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "params.npz", kernel=np.array([CreatesFile()]))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        dict(np.load(tmp_path / "params.npz"))
    assert_nothing_was_executed()
