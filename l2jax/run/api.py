"""`l2jax.sweep`: a whole sweep in one call, in memory or in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import optax
from numpy.typing import ArrayLike
from rich.console import Console

from l2jax.checkpoint.storage import Storage
from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset, as_dataset
from l2jax.distributed.driver import Driver
from l2jax.distributed.ray_executor import ray_workers
from l2jax.distributed.workers import Workers, executor_workers
from l2jax.engine.devices import leave_accelerators_to_workers
from l2jax.engine.sweep import Sweep
from l2jax.errors import InvalidInputError, NothingTrainedError, SweepWarning
from l2jax.hyperparameters import Values
from l2jax.network.model import ModelFn
from l2jax.results.files import CONFIG, read_config
from l2jax.results.parameters import Arrays, Kept, trial_grid
from l2jax.results.results import Results
from l2jax.run.folder import make_run_dir
from l2jax.run.loading import best_index, build_network
from l2jax.run.options import RunOptions
from l2jax.run.output import progress_console
from l2jax.run.parameters import arrays_of, arrays_of_all, keep_trained
from l2jax.run.terminal import load_with_progress, progress_bar, show_compilation, show_work, show_workers
from l2jax.trial.optimizer import OptimizerFn
from l2jax.trial.penalty import PenaltyFn


def sweep(
    l2: Values = SweepConfig.l2,
    seeds: int = SweepConfig.seeds,
    *,
    dataset: str | os.PathLike[str] | Dataset | tuple[ArrayLike, ArrayLike] = SweepConfig.dataset,
    model: ModelFn | None = None,
    optimizer: OptimizerFn = optax.adam,
    penalty: PenaltyFn | None = None,
    hyperparameters: Mapping[str, Values] | None = None,
    epochs: int = SweepConfig.epochs,
    batch_size: int = SweepConfig.batch_size,
    learning_rate: Values = SweepConfig.learning_rate,
    weight_decay: Values = SweepConfig.weight_decay,
    label_smoothing: Values = SweepConfig.label_smoothing,
    l1: Values = SweepConfig.l1,
    l2_on: str = SweepConfig.l2_on,
    train_size: float | Literal["auto"] | None = SweepConfig.train_size,
    val_size: float | Literal["test"] | None = 400,
    folds: int = SweepConfig.folds,
    label_noise: float = SweepConfig.label_noise,
    image_size: int | None = SweepConfig.image_size,
    data_dir: str | None = SweepConfig.data_dir,
    bfloat16: bool = SweepConfig.bfloat16,
    devices: int | None = SweepConfig.devices,
    trials_at_once: int | None = SweepConfig.trials_at_once,
    autotune: bool = SweepConfig.autotune,
    run_dir: str | os.PathLike[str] | None = None,
    ray: str | None = None,
    executor: Executor | None = None,
    storage: str | os.PathLike[str] | None = None,
    keep: Literal["best", "all"] = "best",
    progress: bool = False,
) -> Results:
    """Trains every combination of hyperparameters from every seed on every fold, all at the same time.

    Hyperparameters take one value or several, or logarithmic grids such as "log:1e-5:1e-1:9".

    With a run folder, the sweep leaves the files that the command does. The same call again goes on where the last one
    ended, be it by Ctrl-C, SIGTERM or a power cut, and a call with more epochs, seeds or values of hyperparameters
    extends what is there; nothing is trained twice. Ctrl-C stops after the epoch and raises KeyboardInterrupt when all
    that is complete has been saved; once more, it stops at once. Without a folder it stops at once.

    Args:
      l2: strengths; each adds (l2/2) * sum(kernel**2) to the loss, where kernels are the parameters of that name.
      seeds: trials per setting. Trials that share a seed share split, initial parameters and data order.
      dataset: a name or a path, as `load_dataset` takes them, a `Dataset`, or (images, labels), as a `Dataset` takes
        them: images (N, H, W, C), or (N, ...) for a model of your own, uint8 or floats.
      model: makes one trial's network: a Flax NNX module from `nnx.Rngs`, such as its class, a function or a partial;
        or a Linen module, or its class. It maps images (B, H, W, C), uint8 scaled to [0, 1] and floats as they are, to
        logits (B, classes). Parameters, `nnx.Param`, are trained; all other variables, such as batch statistics and
        dropout's streams, are carried from step to step. None takes `CNN`.
      optimizer: makes the optimizer from a learning rate, its first argument. If it names `total_steps` or
        `steps_per_epoch` as arguments, it gets them, for schedules. Optimizers that ask for the value of the objective
        get it; schedule-free ones and lookahead are evaluated at their evaluation parameters.
      penalty: what is added to the loss: a function of the parameters, and of hyperparameters by name, to a scalar.
        None: L2 and L1, as below.
      hyperparameters: values of your own hyperparameters by name. The model, the optimizer or the penalty takes each
        as an argument of that name, as an array (), or as a number if it branches on it and there is one value.
      epochs: passes over the training examples.
      batch_size: examples per step.
      learning_rate: learning rates, which `optimizer` gets.
      weight_decay: decoupled weight decays, as in AdamW, of kernels. An optimizer that has an argument of this name
        decays the weights itself; then 0 alone leaves it at its own default.
      label_smoothing: the part of a label that is spread over all classes.
      l1: strengths of L1; each adds l1 * sum(abs(kernel)) to the loss.
      l2_on: the layers that L2 and L1 fall on: patterns of their paths, such as "conv* head/*", separated by spaces.
      train_size: training examples per trial, or a fraction of all; with folds, in all folds together. None: all;
        "auto": 400 of "mnist_small" given by name, otherwise all.
      val_size: examples held out for validation, or a fraction of all; "test": the test set instead.
      folds: cross-validation folds; 1 holds out `val_size` examples.
      label_noise: fraction of the training labels to make wrong.
      image_size: pixels per side, to which the images of a folder are brought; see `load_dataset`.
      data_dir: folder of the data sets of tensorflow-datasets.
      bfloat16: multiply matrices in bfloat16, and sum in float32.
      devices: how many devices to use; on CPU one device is one core. None: all.
      trials_at_once: trials to hold in memory. None: as many as fit.
      autotune: time the ways to compute, and keep the fastest.
      run_dir: a folder for files and checkpoints: new, empty, or of the same sweep. It is refused if its sweep had
        other examples, another network or optimizer, other options, or values that are now missing. None: no files.
      ray: train on a Ray cluster: "auto", "host:6379" or the like as `ray.init` takes it; "local" starts one on this
        machine, which ends with the call. Every GPU, or else every core, trains a chunk at a time.
      executor: trains chunks in the processes of this executor, such as a `ProcessPoolExecutor` that spawns; data set
        and functions are pickled, and each process uses one device.
      storage: with `ray` or `executor`, the folder that all machines see, or the address, such as s3://bucket/folder,
        where workers keep checkpoints. None: the run folder, or without one a temporary folder of this machine.
      keep: the trained parameters to keep, for `Results.params` and `Results.network`: of the best trial, or of all.
      progress: show on stderr how far the sweep is: a bar on a terminal or in a notebook, some 20 lines elsewhere.

    Returns:
      The metrics of every trial at every epoch, and the trained parameters that are kept.

    Raises:
      InputError: for what cannot be used; says what was given and what is accepted.
      OSError: if files cannot be written; what was written before is intact.
      NothingTrainedError: if no worker completes an epoch.
    """
    data = None if isinstance(dataset, str | os.PathLike) else as_dataset(dataset)
    if data is not None and image_size is not None:
        raise InvalidInputError("image_size", image_size, "none, as arrays have a size")
    name: Any = dataset if data is None else data.name  # the config converts a path
    config = SweepConfig(
        l2=l2,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        l1=l1,
        l2_on=l2_on,
        hyperparameters=hyperparameters or {},
        train_size=None if data is not None and train_size == "auto" else train_size,
        val_size=val_size,
        folds=folds,
        label_noise=label_noise,
        dataset=name,
        image_size=image_size,
        data_dir=data_dir,
        bfloat16=bfloat16,
        devices=devices,
        trials_at_once=trials_at_once,
        autotune=autotune,
    )
    folder = Path(run_dir) if isinstance(run_dir, str | os.PathLike) else run_dir
    resume = folder if folder and (folder / CONFIG).exists() else None
    if executor is not None and ray is not None:
        raise InvalidInputError("executor", executor, "none with ray")
    if storage is not None and executor is None and ray is None:
        raise InvalidInputError("storage", storage, "none without ray or an executor")
    options = RunOptions(
        run_dir=None if resume else folder,
        resume=resume,
        keep=keep,
        ray=ray,
        storage=None if storage is None or resume else os.fspath(storage),
        quiet=not progress,
    )
    if resume:
        config.check_extends(read_config(resume, "run_dir"))
    console = progress_console(quiet=not progress)
    if data is None:
        data = load_with_progress(config, console)
    if ray is not None:
        leave_accelerators_to_workers()
    trained = Sweep(config, data, model=model, optimizer=optimizer, penalty=penalty)
    with contextlib.ExitStack() as stack:
        workers = None if executor is None else executor_workers(executor)
        if ray is not None:
            workers = stack.enter_context(ray_workers(ray, config.devices))
        if folder is not None:
            return _in_folder(trained, options, console, workers)
        if workers is None:
            return _in_memory(trained, keep, console)
        place = options.storage or stack.enter_context(tempfile.TemporaryDirectory(prefix="l2jax_"))
        return _by_workers(trained, Driver(trained, workers, Storage(place)), keep, console)


def _in_memory(sweep: Sweep, keep: str, console: Console) -> Results:
    """Trains to the last epoch, and keeps parameters in memory."""
    kept: dict[int, Arrays] = {}
    show_work(sweep, (), console)
    show_compilation(sweep, console)
    with progress_bar(sweep, console) as show:
        for record in sweep.epochs():
            show(record)
            if record.number == sweep.config.epochs:
                kept = keep_trained(kept, sweep, keep)
    results = sweep.results()
    if keep == "best":
        kept = {index: arrays for index, arrays in kept.items() if index == best_index(results)}
    return _with_kept(results, kept, sweep)


def _by_workers(sweep: Sweep, driver: Driver, keep: str, console: Console) -> Results:
    """Has workers train to the last epoch, and keeps parameters in memory."""
    show_work(sweep, (), console)
    show_workers(driver, console)
    with progress_bar(sweep, console) as show:
        for record in driver.epochs():
            show(record)
    if not sweep.ledger.epochs_done.any():
        raise NothingTrainedError("; ".join(driver.lost))
    for line in driver.lost:
        warnings.warn(f"given up: {line}", SweepWarning, stacklevel=3)
    results = sweep.results()
    best, kept = best_index(results), dict[int, Arrays]()
    if keep == "all":
        arrays = arrays_of_all(sweep, driver.checkpoints)
        kept = {index: {path: values[index] for path, values in arrays.items()} for index in range(sweep.num_trials)}
    elif best is not None:
        kept = {best: arrays_of(best, sweep, driver.checkpoints)}
    return _with_kept(results, kept, sweep)


def _with_kept(results: Results, kept: dict[int, Arrays], sweep: Sweep) -> Results:
    found = Kept(trial_grid(results.data), kept.get, build_network, sweep.setup.own_model)
    return dataclasses.replace(results, kept=found)


def _in_folder(sweep: Sweep, options: RunOptions, console: Console, workers: Workers | None) -> Results:
    """Trains in a run folder as the command does, and passes a signal on when everything is saved."""
    from l2jax.run.session import train_in_folder  # figures and the report take a second to import

    run_dir = options.resume or make_run_dir(options.run_dir)
    try:
        done = train_in_folder(sweep, run_dir, options, console, workers=workers)
    except OSError as error:
        error.add_note(f"What was written to {run_dir} before is intact: the same call goes on from there.")
        raise
    if done.failed:
        lost = f"{run_dir}: the results are saved; not written: {', '.join(done.failed)}"
        warnings.warn(lost, SweepWarning, stacklevel=3)
    for line in done.lost:
        warnings.warn(f"given up, and tried again by the same call: {line}", SweepWarning, stacklevel=3)
    if done.signals:
        signal.raise_signal(done.signals[0])
    return done.results
