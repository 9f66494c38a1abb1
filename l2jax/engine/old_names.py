"""Names that version 0.1 had for what a sweep has now; each still works, and warns."""

from __future__ import annotations

import warnings
from typing import Any

from l2jax.engine.ledger import EpochRecord
from l2jax.engine.plan import Plan
from l2jax.engine.snapshot import Snapshot


class OldNames:
    """The deprecated attributes of `Sweep`, which is its only subclass."""

    compile: Any
    ledger: Any
    snapshot: Any
    check_snapshot: Any

    @property
    def plan(self) -> Plan:
        """Deprecated: use `compile()`."""
        warnings.warn("Sweep.plan is now Sweep.compile()", DeprecationWarning, stacklevel=2)
        return self.compile()

    @property
    def history(self) -> list[EpochRecord]:
        """Deprecated: use `ledger.records()`."""
        warnings.warn("Sweep.history is now Sweep.ledger.records()", DeprecationWarning, stacklevel=2)
        return list(self.ledger.records())

    def progress(self) -> Snapshot:
        """Deprecated: use `snapshot()`."""
        warnings.warn("Sweep.progress is now Sweep.snapshot", DeprecationWarning, stacklevel=2)
        return self.snapshot()

    def check(self, snapshot: Snapshot) -> None:
        """Deprecated: use `check_snapshot()`."""
        warnings.warn("Sweep.check is now Sweep.check_snapshot", DeprecationWarning, stacklevel=2)
        self.check_snapshot(snapshot)
