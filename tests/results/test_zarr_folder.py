"""results.zarr holds what results.nc would, is read piece by piece, and is whole or not there."""

import hashlib
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.magnitudes import with_magnitudes
from helpers.results import STRENGTHS, synthetic

from l2jax.atomic import SUMS
from l2jax.errors import InputError, InvalidInputError
from l2jax.results import files, zarr_folder
from l2jax.results.brief import brief
from l2jax.results.results import load_results
from l2jax.results.zarr_folder import piece_shape

FILES = {"SHA256SUMS", "config.json", "results.zarr", "summary.csv"}


@pytest.fixture(params=[2**23, 64], ids=["one piece", "many pieces"])
def always_zarr(monkeypatch, request):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    monkeypatch.setattr(zarr_folder, "PIECE", request.param)


@pytest.fixture
def results():
    return with_magnitudes(synthetic(diverged=[(1e-3, 1, 3), (1e-1, 0, 1)]))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_zarr_and_netcdf_hold_the_same_numbers(tmp_path, results, monkeypatch):
    results.save(tmp_path / "small")
    monkeypatch.setattr(files, "LARGEST_NETCDF", results.data.nbytes - 1)
    results.save(tmp_path / "large")
    assert names(tmp_path / "large") == FILES and "results.nc" in names(tmp_path / "small")
    small, large = load_results(tmp_path / "small"), load_results(tmp_path / "large")
    assert small == large == results
    with xr.open_zarr(tmp_path / "large" / "results.zarr") as alone:
        xr.testing.assert_identical(alone.load(), results.data)
        for name, variable in results.data.variables.items():
            assert alone[name].dtype == variable.dtype, name


def test_small_results_are_the_netcdf_that_xarray_writes(tmp_path, results):
    results.save(tmp_path)
    assert (tmp_path / "results.nc").read_bytes() == bytes(results.data.to_netcdf(engine="scipy"))


def test_what_is_read_piece_by_piece_gives_the_same_tables(tmp_path, results, always_zarr):
    results.save(tmp_path)
    loaded = load_results(tmp_path)
    pd.testing.assert_frame_equal(loaded.trials_table()[results.trials_table().columns], results.trials_table())
    pd.testing.assert_frame_equal(loaded.settings_table(), results.settings_table())
    assert loaded.best_trial() == results.best_trial() and brief(loaded) == brief(results)
    summary = pd.read_csv(tmp_path / "summary.csv", dtype=results.trials_table().dtypes.to_dict())
    pd.testing.assert_frame_equal(summary, results.trials_table(), check_index_type=False, rtol=1e-6)
    in_memory = [name for name in loaded.data.data_vars if loaded.data[name].variable._in_memory]
    assert in_memory == ["diverged"]


def test_saving_again_what_is_read_piece_by_piece(tmp_path, results, always_zarr):
    results.save(tmp_path / "a")
    load_results(tmp_path / "a").save(tmp_path / "b")
    assert load_results(tmp_path / "b") == results


@pytest.mark.parametrize("sizes", [(8, 125_000, 20), (200_000, 5, 20), (1000, 1000), (3,), (20, 10**7), (0, 3)])
def test_pieces_are_neither_too_large_nor_too_many(sizes):
    dims = ("l2", "seed", "epoch")[: len(sizes)]
    variable = xr.Variable(dims, np.broadcast_to(np.float64(0), sizes))
    shape = piece_shape(variable)
    assert math.prod(shape) * 8 <= zarr_folder.PIECE
    pieces = math.prod(math.ceil(size / piece) for size, piece in zip(sizes, shape, strict=True))
    assert pieces <= 4 * max(1, variable.nbytes / zarr_folder.PIECE)


def test_the_last_epoch_is_in_few_pieces():
    variable = xr.Variable(("l2", "seed", "epoch"), np.broadcast_to(np.float64(0), (200_000, 5, 20)))
    assert piece_shape(variable) == (200_000, 5, 1)


def test_checksums_are_those_of_every_file(tmp_path, results, always_zarr):
    results.save(tmp_path)
    head, *lines = (tmp_path / SUMS).read_text().splitlines()
    text = "".join(line + "\n" for line in lines)
    assert head == f"# {hashlib.sha256(text.encode()).hexdigest()}"
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    paths = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert sums.keys() == paths.keys() - {SUMS}
    assert all(
        hashlib.sha256(path.read_bytes()).hexdigest() == sums[name] for name, path in paths.items() if name in sums
    )


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _flip(folder / "val_loss" / "0.0.0"),
        lambda folder: _flip(folder / ".zmetadata"),
        lambda folder: (folder / "penalty" / "0.0.0").unlink(),
        lambda folder: (folder / "penalty" / "0.0.1").write_bytes(b"more"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, results, monkeypatch, damage):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    results.save(tmp_path)
    damage(tmp_path / "results.zarr")
    with pytest.raises(InvalidInputError, match=r"results\.zarr is damaged") as raised:
        load_results(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "pandas.DataFrame.to_csv"])
def test_a_full_disk_leaves_the_results_before(tmp_path, results, monkeypatch, step):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    results.save(tmp_path)

    def full_disk(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as during:
        during.setattr(step, full_disk)
        with pytest.raises(OSError, match="no space"):
            results.save(tmp_path)
    assert load_results(tmp_path) == results
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_process_killed_as_it_replaces_a_folder_loses_nothing(tmp_path, results, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    results.save(tmp_path)
    (tmp_path / SUMS).unlink()
    (tmp_path / "results.zarr").rename(tmp_path / ".results.zarr.before")
    assert load_results(tmp_path) == results
    synthetic().save(tmp_path)
    assert load_results(tmp_path) == synthetic() and names(tmp_path) == FILES


def test_leftovers_of_a_killed_process_are_removed(tmp_path, results, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    for leftover in (".results.zarr.partial", ".results.zarr.removed", ".results.zarr.before"):
        (tmp_path / leftover / "val_loss").mkdir(parents=True)
    results.save(tmp_path)
    assert names(tmp_path) == FILES | {".results.zarr.removed"}
    monkeypatch.setattr(files, "LARGEST_NETCDF", 2**28)
    results.save(tmp_path)
    assert names(tmp_path) == (FILES | {"results.nc"}) - {"results.zarr"}


def test_a_run_that_grows_has_one_kind_of_results(tmp_path, results, monkeypatch):
    small, large = synthetic(STRENGTHS[:4]), results
    for limit, saved, kept in ((2**28, small, "results.nc"), (0, large, "results.zarr"), (2**28, small, "results.nc")):
        monkeypatch.setattr(files, "LARGEST_NETCDF", limit)
        saved.save(tmp_path)
        assert names(tmp_path) & {"results.nc", "results.zarr"} == {kept}
        assert load_results(tmp_path) == saved


@pytest.mark.parametrize("limit", [0, 2**28])
def test_killed_before_the_other_kind_is_removed(tmp_path, results, monkeypatch, limit):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 2**28 - limit)
    synthetic(STRENGTHS[:4]).save(tmp_path)

    def remove(path):
        if path.name in ("results.nc", "results.zarr"):
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "LARGEST_NETCDF", limit)
    with monkeypatch.context() as during:
        during.setattr("l2jax.atomic._remove", remove)
        with pytest.raises(KeyboardInterrupt):
            results.save(tmp_path)
    assert {"results.nc", "results.zarr"} <= names(tmp_path)
    assert load_results(tmp_path) == results


def test_results_that_have_changed_since_are_not_mixed(tmp_path, results, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    results.save(tmp_path)
    loaded = load_results(tmp_path)
    synthetic().save(tmp_path)
    with pytest.raises(InputError, match=r"it has changed since; l2jax\.load_results reads the folder again"):
        loaded.settings_table()
    assert load_results(tmp_path) == synthetic()


def test_a_piece_that_is_gone_is_no_zero(tmp_path, results, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_NETCDF", 0)
    results.save(tmp_path)
    loaded = load_results(tmp_path)
    (tmp_path / "results.zarr" / "val_loss" / "0.0.0").unlink()
    with pytest.raises(InputError, match="it has changed since"):
        loaded.data["val_loss"].load()
