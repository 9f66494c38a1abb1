"""Ray as an executor: functions run in the processes of a Ray cluster, one that runs or one of this machine's own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from types import ModuleType
from typing import Any

from l2jax.data.dataset import Dataset
from l2jax.distributed.workers import Workers
from l2jax.engine.devices import usable_cores
from l2jax.errors import InvalidInputError, SweepWarning, reason

# Ray takes half a second to import, and is of the extra "ray".

LOCAL = "local"
"""In place of an address: a cluster of this machine's cores or GPUs, for this process alone."""


@contextlib.contextmanager
def ray_workers(address: str, num_cpus: int | None = None) -> Iterator[Workers]:
    """Connects to a Ray cluster, or starts one on this machine: one worker for each GPU, otherwise for each core.

    A cluster that is started here listens on the loopback interface alone, has no dashboard, reports to nobody, and
    ends with the block, as everything does that was submitted.

    Args:
      address: as `ray.init` takes it, such as "auto" or "host:6379"; "local" starts one.
      num_cpus: of a cluster that is started; None: all cores.

    Raises:
      InputError: if there is no Ray, or no such cluster, or if one that runs is to have so many CPUs.
    """
    workers = _connect_workers(address, num_cpus)
    try:
        yield workers
    finally:
        workers.executor.shutdown(cancel_futures=True)


def _connect_workers(address: str, num_cpus: int | None) -> Workers:
    if importlib.util.find_spec("ray") is None:
        raise InvalidInputError("ray", address, "an installation with Ray: pip install 'l2jax[ray]'")
    import ray

    ours = not ray.is_initialized()
    if num_cpus and (address != LOCAL or not ours):
        raise InvalidInputError("devices", num_cpus, "none with a cluster that runs: each worker has one device")
    if ours:
        _connect(ray, address, num_cpus)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counts = {kind: [int(node.get(kind, 0)) for node in nodes] for kind in ("GPU", "TPU", "CPU")}
    kind = next((kind for kind in counts if any(counts[kind])), None)
    if kind is None:
        raise InvalidInputError("ray", address, "a cluster that has CPUs or GPUs")
    if kind != "CPU" and 0 in counts[kind]:
        warnings.warn(f"nodes without a {kind} are not used", SweepWarning, stacklevel=2)
    if kind == "TPU":  # one worker for each host, with all of its chips
        executor = RayExecutor(ray, {"resources": {"TPU": max(counts[kind])}, "num_cpus": 0}, shut_down=ours)
        return Workers(executor, sum(count > 0 for count in counts[kind]), devices=None)
    executor = RayExecutor(ray, {"num_cpus": 1} if kind == "CPU" else {"num_gpus": 1, "num_cpus": 0}, shut_down=ours)
    return Workers(executor, sum(counts[kind]), per_machine=max(counts[kind]) if kind == "CPU" else 1)


class RayExecutor(Executor):
    """Runs each function as a task of Ray, in a process that does one at a time.

    A task that fails is not tried again: whoever submitted it decides. A data set goes to each node once.

    Args:
      ray: the module, connected to a cluster.
      options: the resources that a task takes, as `ray.remote` does.
      shut_down: whether the connection, and a cluster that was started with it, ends with the executor.
    """

    def __init__(self, ray: ModuleType, options: dict[str, Any], *, shut_down: bool):
        self.ray, self.shut_down = ray, shut_down
        self._call = ray.remote(max_retries=0, **options)(_call)
        self._stored: dict[int, tuple[Dataset, Any]] = {}
        self._running: dict[Future, Any] = {}
        for module in _unimportable():
            ray.cloudpickle.register_pickle_by_value(module)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        reference = self._call.remote(fn, *map(self._stored_once, args), **kwargs)
        future: Future = Future()
        future.set_running_or_notify_cancel()  # Ray may begin with it at any time: it cannot be taken back
        self._running[future] = reference
        reference.future().add_done_callback(lambda done: self._finish(future, done))
        return future

    def _finish(self, future: Future, done: Future) -> None:
        del self._running[future]
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:  # what the function raised, without Ray's wrapping
            cause = getattr(error, "cause", None)
            future.set_exception(cause if isinstance(cause, BaseException) else error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            for reference in list(self._running.values()):
                self.ray.cancel(reference, force=True)
        elif wait:
            concurrent.futures.wait(list(self._running))
        if self.shut_down:
            self.ray.shutdown()

    def _stored_once(self, argument: Any) -> Any:
        """The argument; of a data set, the reference in the object store."""
        if not isinstance(argument, Dataset):
            return argument
        if id(argument) not in self._stored:
            self._stored[id(argument)] = argument, self.ray.put(argument)
        return self._stored[id(argument)][1]


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Any callable as a function, which is all that Ray takes."""
    return fn(*args, **kwargs)


def _connect(ray: ModuleType, address: str, num_cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _on_loopback(ray):
            ray.init(address="local", num_cpus=num_cpus or usable_cores(), include_dashboard=False, **quiet)
        return
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():  # or Ray tries for a minute, and then ends the process
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray has no type of its own for it
        accepted = f"the address of a Ray cluster that runs ({reason(error)})"
        raise InvalidInputError("ray", address, accepted) from None


@contextlib.contextmanager
def _on_loopback(ray: ModuleType) -> Iterator[None]:
    """Makes a cluster that starts listen on the loopback interface alone, as Ray does by itself on Windows and macOS.

    On Linux it resolves 127.0.0.1 to the address by which others reach this machine, whatever it is asked for.
    """
    constants = ray._private.ray_constants
    usual, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = usual


def _unimportable() -> list[ModuleType]:
    """Modules that another process could not import, such as a file that the command line names: they go by value."""
    scripts = {name: m for name, m in sys.modules.items() if "." not in name and _is_script(m)}
    return [module for name, module in scripts.items() if name != "__main__" and not _importable(name, module)]


def _is_script(module: ModuleType) -> bool:
    is_frozen = getattr(module.__spec__, "origin", None) == "frozen"
    return str(getattr(module, "__file__", None)).endswith(".py") and not is_frozen


def _importable(name: str, module: ModuleType) -> bool:
    """Whether the module of this name is the one that an import would find."""
    finders = [find for finder in sys.meta_path if (find := getattr(finder, "find_spec", None))]
    specs = (find(name, None) for find in finders)
    return any(spec is not None and spec.origin == module.__file__ for spec in specs)
