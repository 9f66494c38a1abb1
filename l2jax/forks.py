"""Notes whether this process was forked from one in which JAX ran. Its threads stay behind, and it waits for them."""

from __future__ import annotations

import os
import sys

_ran_before_fork: list[bool] = []


def forked_from_jax() -> bool:
    """Whether JAX ran when this process was forked. The package must have been imported before."""
    return bool(_ran_before_fork)


def _note() -> None:
    if "jax" not in sys.modules:
        return
    config, option = sys.modules["jax"].config, "jax_num_cpu_devices"
    before = config.values[option]
    try:
        config.update(option, max(before, 0) + 1)
    except RuntimeError:  # what JAX raises once it runs
        _ran_before_fork.append(True)
    else:
        config.update(option, before)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_note)
