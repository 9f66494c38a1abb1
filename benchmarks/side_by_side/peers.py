"""The peers, the groups in which they take turns, and how much faster than them l2jax must be."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from typing import NamedTuple

from peers.peer import cores

from side_by_side.plan import STRENGTHS, Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to train, and how much it trains.

    Attributes:
      name: its row in the table.
      script: a file in peers/ without its ending, or a path.
      strengths: L2 strengths.
      seeds: trials per strength.
      epochs: epochs per round.
      rounds: rounds in which it takes part: the first ones, where others take part in more.
      needs: packages that may not be installed.
      variant: for a script that knows several ways to train.
      network: for a script that knows several networks; the small CNN by default.
      process_per_core: the trials are divided among one process per core, each with one thread.
      processes: the trials are divided among this many processes, which share the cores.
    """

    name: str
    script: str
    strengths: tuple[float, ...] = ()
    seeds: int = 1
    epochs: int = 1
    rounds: int
    needs: tuple[str, ...] = ()
    variant: str = ""
    network: str = ""
    process_per_core: bool = False
    processes: int = 1

    @property
    def num_trials(self) -> int:
        """Trials that it trains; 0 for matrix products alone."""
        return len(self.strengths) * self.seeds

    @property
    def is_l2jax(self) -> bool:
        return self.script == "l2jax_sweep"

    def missing(self) -> list[str]:
        """Packages that it needs and that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


class Comparison(NamedTuple):
    """The rate of one peer over that of the fastest of others, round by round.

    Attributes:
      name: its row in the table of ratios.
      peer: the peer in the numerator.
      others: the peers of which the fastest is the denominator.
      at_least: the smallest ratio that is good enough; None: the ratio is only reported.
    """

    name: str
    peer: Peer
    others: tuple[Peer, ...]
    at_least: float | None = None


class Group(NamedTuple):
    """Peers that take turns on the same examples.

    Attributes:
      title: its name on stderr.
      peers: in the order of their rows and turns.
      comparisons: what is concluded from their rates.
      reference: the peer whose training loss the others must reach; None: losses are not compared.
      limit: the peer that trains nothing, but says what the machine could do at most.
    """

    title: str
    peers: tuple[Peer, ...]
    comparisons: tuple[Comparison, ...]
    reference: Peer | None = None
    limit: Peer | None = None


def same_network(plan: Plan) -> Group:
    """The built-in network on digits: l2jax, what people use instead, and what the machine could do."""
    strengths = STRENGTHS[: plan.strengths]
    everything = {"strengths": strengths, "seeds": plan.seeds, "rounds": plan.rounds, "epochs": plan.epochs}
    one_trial = {"strengths": strengths[:1], "rounds": plan.rounds, "epochs": 4 * plan.epochs}
    pytorch = functools.partial(Peer, script="torch_loop", needs=("torch",), **everything)

    l2jax = Peer(name="l2jax", script="l2jax_sweep", **everything)
    keras = Peer(
        name="Keras 3 on TensorFlow, model.fit", script="keras_fit", needs=("keras", "tensorflow"), **everything
    )
    pytorches = (
        pytorch(name="PyTorch, 1 process"),
        pytorch(name="PyTorch, 1 process, channels_last", variant="channels_last"),
        pytorch(name="PyTorch, one process per core", process_per_core=True),
        pytorch(name="PyTorch, one process per core, channels_last", process_per_core=True, variant="channels_last"),
    )
    # It would take hours for the others' work.
    jax_vmap = Peer(
        name="JAX as tutorials write it: vmap, lax.scan",
        script="jax_vmap",
        strengths=strengths[:2],
        rounds=plan.slow_rounds,
    )
    flax_per_core = Peer(
        name="Flax, one process per trial, one per core", script="flax_loop", process_per_core=True, **everything
    )
    flax_one = Peer(name="Flax, 1 trial", script="flax_loop", **one_trial)
    l2jax_one = Peer(name="l2jax, 1 trial", script="l2jax_sweep", **one_trial)
    peak = Peer(name="matrix products alone, at the machine's peak", script="matmul_peak", rounds=plan.rounds)
    return Group(
        "the built-in network",
        peers=(l2jax, keras, *pytorches, jax_vmap, flax_per_core, flax_one, l2jax_one, peak),
        comparisons=(
            Comparison("Keras 3 on TensorFlow", l2jax, (keras,), at_least=2.5),
            Comparison("PyTorch, the best of 4", l2jax, pytorches, at_least=1.8),
            Comparison("JAX as tutorials write it", l2jax, (jax_vmap,), at_least=30),
            Comparison("Flax, one process per trial", l2jax, (flax_per_core,)),
            Comparison("Flax, 1 trial each", l2jax_one, (flax_one,), at_least=1),
            Comparison(peak.name, l2jax, (peak,), at_least=0.75),
        ),
        reference=l2jax,
        limit=peak,
    )


def larger_network(plan: Plan) -> Group:
    """A user's own network, larger than `l2jax.CNN`, with one or two trials per core."""
    work = {"strengths": STRENGTHS[:2], "seeds": -(-len(cores()) // 2), "network": "deeper"}
    l2jax = Peer(name="l2jax", script="l2jax_sweep", epochs=4, rounds=plan.rounds, **work)
    jax_vmap = Peer(name="JAX as tutorials write it", script="jax_vmap", rounds=plan.slow_rounds, **work)
    comparison = Comparison("a larger network, against JAX as tutorials write it", l2jax, (jax_vmap,), at_least=10)
    return Group("a larger network", (l2jax, jax_vmap), (comparison,), reference=l2jax)


def more_trials(plan: Plan) -> Group:
    """l2jax with more and more trials; where they are few, they train for more epochs per round."""
    by_size = {
        size: Peer(
            name=f"l2jax, {size} trials",
            script="l2jax_sweep",
            strengths=STRENGTHS[:size],
            seeds=max(1, size // len(STRENGTHS)),
            epochs=max(1, 64 // size),
            rounds=plan.rounds,
        )
        for size in plan.sizes
    }
    comparisons = ()
    if {16, 256} <= by_size.keys():
        comparisons = (Comparison("l2jax: 256 trials against 16", by_size[256], (by_size[16],), at_least=0.9),)
    return Group("l2jax with more and more trials", tuple(by_size.values()), comparisons)
