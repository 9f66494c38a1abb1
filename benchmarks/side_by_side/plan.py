"""The amount of work that is measured: the full plan, and a quick one to try it out."""

from __future__ import annotations

import dataclasses

from peers.peer import cores

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The amount of work that is measured.

    Attributes:
      examples: digits that every peer trains on; a multiple of the batch size.
      few_examples: digits for many trials, and for the larger network.
      strengths: how many of `STRENGTHS` every peer trains.
      seeds: trials per strength.
      warm_up: epochs that every peer trains before the rounds.
      epochs: epochs per round.
      rounds: rounds in which the peers take turns.
      slow_rounds: rounds for peers that would take hours for the others' work.
      sizes: numbers of trials that l2jax trains alone.
      starts_at_once: peers that start at the same time. Several take less time in all, but more for each.
    """

    examples: int
    few_examples: int
    strengths: int
    seeds: int
    warm_up: int
    epochs: int
    rounds: int
    slow_rounds: int
    sizes: tuple[int, ...]
    starts_at_once: int


FULL = Plan(
    examples=1024,
    few_examples=256,
    strengths=len(STRENGTHS),
    seeds=2 * len(cores()),
    warm_up=2,
    epochs=2,
    rounds=3,
    slow_rounds=2,
    sizes=(1, 4, 16, 64, 256),
    starts_at_once=1,
)
QUICK = Plan(
    examples=256,
    few_examples=64,
    strengths=2,
    seeds=len(cores()),
    warm_up=1,
    epochs=2,
    rounds=2,
    slow_rounds=1,
    sizes=(64,),
    starts_at_once=len(cores()),
)
