"""Sweeps on a Ray cluster of this machine: bitwise those of one process, whoever is killed on the way."""

import inspect
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
from flax import nnx
from helpers import tiny_run

import l2jax
from l2jax.checkpoint.storage import Storage
from l2jax.distributed.driver import Driver
from l2jax.distributed.ray_executor import ray_workers
from l2jax.errors import InputError

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),
]

ROOT = Path(__file__).parents[2]
NUM_EPOCHS = 600


class Tiny(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(28 * 28, 10, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(len(images), -1))


WORDS = [
    "--l2",
    "0",
    "1e-2",
    "--seeds",
    "2",
    "--train-size",
    "64",
    "--val-size",
    "64",
    "--trials-at-once",
    "2",
    "--checkpoint-minutes",
    "0",
]


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))  # for the models of `helpers`
        yield from start_workers()


def start_workers():
    with ray_workers("local", num_cpus=2) as workers:
        yield workers


def long_sweep(epochs=300):
    """Enough epochs to be killed in."""
    return tiny_run.sweep(l2jax.SweepConfig(**vars(tiny_run.CONFIG) | {"epochs": epochs}))


@pytest.fixture(scope="module")
def expected():
    sweep = long_sweep()
    for _ in sweep.epochs():
        pass
    return sweep.results().data


def worker_processes():
    return [
        process for process in psutil.process_iter(["cmdline"]) if "ray::_call" in (process.info["cmdline"] or [""])[0]
    ]


def test_a_data_set_goes_to_the_object_store_once(workers, monkeypatch):
    data, stored = tiny_run.dataset(), []
    monkeypatch.setattr(ray, "put", lambda value, put=ray.put: stored.append(value) or put(value))
    futures = [workers.executor.submit(np.shape, data.images), *(workers.executor.submit(len_of, data) for _ in "ab")]
    assert [future.result() for future in futures] == [(80, 7, 7, 1), 80, 80]
    assert stored == [data]


def len_of(data):
    return len(data.images)


def test_errors_come_as_they_were_raised(workers):
    future = workers.executor.submit(l2jax.SweepConfig, l2=-1.0)
    with pytest.raises(InputError, match=r"l2: got -1"):
        future.result()


def test_nothing_listens_beyond_this_machine(workers):
    connections = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and is_of_ray(c.pid)]
    listening = [c.laddr.ip for c in connections if c.laddr]
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def is_of_ray(pid):
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return any("ray" in Path(word).parts or word.startswith("ray::") or "gcs_server" in word for word in words)


def test_a_killed_worker_costs_nothing_but_time(workers, tmp_path, expected):
    driver = Driver(long_sweep(), workers, Storage(str(tmp_path)), checkpoint_minutes=0.0)
    driver.plan()
    killed = []
    records = set()
    for record in driver.epochs():
        records.add((record.number, record.indices))
        if not killed:
            killed = worker_processes()
            for process in killed:
                process.kill()
    assert killed
    assert not driver.lost
    assert len(records) == 600
    assert driver.sweep.results().data.identical(expected)


@pytest.mark.slow  # three nodes, each with agents of its own, take minutes to start beside other tests on two cores
def test_a_lost_node_costs_nothing_but_time(tmp_path, workers, expected):
    """On a cluster of its own process, as one process is part of one cluster at a time."""
    done = run_python(
        f"""
        import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
        import ray
        from ray.cluster_utils import Cluster
        cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0}})
        nodes = [cluster.add_node(num_cpus=1) for _ in "ab"]
        ray.init(address=cluster.address, log_to_driver=False)
        from distributed.test_ray import *
        with ray_workers("auto") as workers:
            assert workers.number == 2, workers
            driver = Driver(long_sweep(), workers, Storage({str(tmp_path / "chunks")!r}), checkpoint_minutes=0.0)
            driver.plan()
            for number, record in enumerate(driver.epochs()):
                if number == 0:
                    cluster.remove_node(nodes[0])
        assert not driver.lost, driver.lost
        driver.sweep.results().save({str(tmp_path)!r})
        ray.shutdown()
        cluster.shutdown()
        """
    )
    assert done.returncode == 0, done.stderr
    assert l2jax.load_results(tmp_path).data.identical(expected)


def run_python(code):
    words = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=400)


def command(folder, *words, **options):
    (folder / "network.py").write_text(f"from flax import nnx\n{inspect.getsource(Tiny)}")
    words = [*WORDS, "--model", str(folder / "network.py") + ":Tiny", *map(str, words)]
    return subprocess.Popen(
        [sys.executable, "run_sweep.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_command_is_stopped_and_resumed(tmp_path):
    """With a network from a file, which workers do not have."""
    run_dir = tmp_path / "run"
    process = command(tmp_path, "--ray", "--run-dir", run_dir, "--epochs", NUM_EPOCHS)
    metrics = run_dir / "metrics.jsonl"
    wait_for(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "interrupted: saved the" in err
    wait_for(lambda: not [p for p in worker_processes() if str(run_dir) in " ".join(p.info["cmdline"])])

    resumed = command(tmp_path, "--resume", run_dir, "--ray")
    assert resumed.wait(timeout=400) == 0, resumed.stderr.read()
    results = l2jax.load_results(run_dir)
    data, options = l2jax.load_dataset("mnist_small"), {"train_size": 64, "val_size": 64, "trials_at_once": 2}
    expected = l2jax.sweep([0, 1e-2], 2, dataset=data, model=Tiny, epochs=NUM_EPOCHS, **options)
    assert results.data.identical(expected.data)
    jax.tree.map(np.testing.assert_array_equal, results.params(), expected.params())


@pytest.mark.slow  # Ray's agents take up to a minute to notice
def test_no_process_outlives_a_killed_driver(tmp_path):
    process = command(tmp_path, "--ray", "--run-dir", tmp_path / "run", "--epochs", 20000)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size))
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in descendants)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in descendants))
