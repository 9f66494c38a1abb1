"""The options of a run: how a sweep is run from a terminal. No JAX here, so that `--help` stays quick."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from pathlib import Path

from l2jax.errors import InvalidInputError

MAX_ROUNDS = 20
FIGURE_FORMATS = ("png", "svg", "pdf")
KEEP = ("best", "all")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The options of a run: where its files go, which files there are, and what is printed.

    Args:
      run_dir: New or empty folder; none: runs/DATE_TIME.
      resume: Run folder to continue, or to extend.
      checkpoint_minutes: Least time between checkpoints.
      refine: Rounds of more strengths around the best.
      figures: Format of figures: png; svg or pdf in addition.
      keep: Trained parameters to keep: of the best trial, or all.
      tensorboard: Write event files for TensorBoard.
      profile: Folder for a profiler trace of one epoch.
      ray: Train on a Ray cluster: this machine's own, or the one at an address.
      storage: Shared folder or s3://... for checkpoints of a cluster; none: the run folder.
      quiet: Print nothing but errors.

    Raises:
      InputError: for an option that cannot be used.
    """

    run_dir: Path | None = None
    resume: Path | None = None
    checkpoint_minutes: float = 1.0
    refine: int = 0
    figures: str = "png"
    keep: str = "best"
    tensorboard: bool = False
    profile: Path | None = None
    ray: str | None = None
    storage: str | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        minutes = self.checkpoint_minutes
        if not isinstance(minutes, int | float) or not 0 <= minutes <= 1e6:
            raise InvalidInputError("checkpoint_minutes", minutes, "minutes, 0 to 1e6; 0: after every epoch")
        if not isinstance(self.refine, int) or not 0 <= self.refine <= MAX_ROUNDS:
            raise InvalidInputError("refine", self.refine, f"a whole number, 0 to {MAX_ROUNDS}")
        if self.figures not in FIGURE_FORMATS:
            raise InvalidInputError("figures", self.figures, ", ".join(FIGURE_FORMATS))
        if self.keep not in KEEP:
            raise InvalidInputError("keep", self.keep, ", ".join(KEEP))
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            accepted = "an installation with tensorboardX: pip install 'l2jax[tensorboard]'"
            raise InvalidInputError("tensorboard", "no tensorboardX", accepted)
        if self.ray and self.profile:
            raise InvalidInputError("profile", self.profile, "none with --ray")
        if self.storage and self.resume:
            raise InvalidInputError("storage", self.storage, "none with --resume: it stays where it was")
        if self.resume and self.run_dir:
            raise InvalidInputError("run_dir", self.run_dir, "none with --resume")
        for option in ("run_dir", "resume", "profile"):
            if isinstance(path := getattr(self, option), Path):
                with contextlib.suppress(RuntimeError):  # there is no such user: a name like any other
                    object.__setattr__(self, option, path.expanduser())  # the class is frozen
        for option in ("run_dir", "profile"):
            path = getattr(self, option)
            if not (path is None or (isinstance(path, Path) and _is_new_or_empty(path))):
                raise InvalidInputError(option, path, "a new or empty folder, where files can be written")


def _is_new_or_empty(path: Path) -> bool:
    """Hidden files do not count: a run that is killed as it starts leaves some."""
    with contextlib.suppress(OSError):
        return not path.exists() or all(file.name.startswith(".") for file in path.iterdir())
    return False
