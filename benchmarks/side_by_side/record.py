"""The record of a measurement: one row per peer, in groups, with the plan and the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from side_by_side.peers import Comparison, Group, Peer
from side_by_side.plan import Plan


@dataclasses.dataclass
class Row:
    """The measurements of a peer.

    Attributes:
      name: the peer's.
      trials: how many it trains.
      rates: trial-examples per second in each round; for matrix products alone, the rate that they would allow.
      start_seconds: from its start to the end of its first epoch: imports, compilation, one epoch.
      compile_seconds: of these, compilation, if the peer says so.
      losses: (strengths, seeds), the training loss after the warm-up; None for a single trial.
      peak_memory: bytes, in all its processes.
      step_bytes: what a step of l2jax on a GPU writes, and reads at most.
      copy_rate: bytes per second that a copy in a GPU's memory reads and writes.
      skipped: why it was not measured.
      failed: the error that ended it.
    """

    name: str
    trials: int
    rates: list[float] = dataclasses.field(default_factory=list)
    start_seconds: float | None = None
    compile_seconds: float | None = None
    losses: list[list[float]] | None = None
    peak_memory: float | None = None
    step_bytes: float | None = None
    copy_rate: float | None = None
    skipped: str = ""
    failed: str = ""


class Measured(NamedTuple):
    """A group, and what was measured of each of its peers."""

    group: Group
    rows: Mapping[Peer, Row]

    @property
    def reference(self) -> Row | None:
        """The row whose training loss the others must reach."""
        return self.rows[self.group.reference] if self.group.reference else None

    @property
    def comparisons(self) -> list[tuple[Comparison, Row, list[Row]]]:
        """Each comparison with the row of its peer and those of the others."""
        return [
            (comparison, self.rows[comparison.peer], [self.rows[other] for other in comparison.others])
            for comparison in self.group.comparisons
        ]


@dataclasses.dataclass(frozen=True)
class Record:
    """A whole measurement.

    Attributes:
      machine: as `machine.machine` returns it.
      plan: how much was measured.
      same_network: the built-in network.
      larger_network: a user's own network.
      more_trials: l2jax alone.
    """

    machine: dict[str, Any]
    plan: Plan
    same_network: Measured
    larger_network: Measured
    more_trials: Measured

    @property
    def groups(self) -> tuple[Measured, ...]:
        return self.same_network, self.larger_network, self.more_trials

    @property
    def comparisons(self) -> list[tuple[Comparison, Row, list[Row]]]:
        """The comparisons of all groups."""
        return [comparison for measured in self.groups for comparison in measured.comparisons]

    def to_json(self) -> dict[str, Any]:
        """The machine, the plan and every row, as plain numbers and words."""
        names = ("same_network", "larger_network", "more_trials")
        rows = {name: [dataclasses.asdict(row) for row in getattr(self, name).rows.values()] for name in names}
        return self.machine | {"plan": dataclasses.asdict(self.plan)} | rows
