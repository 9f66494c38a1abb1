"""The peers on a GPU: l2jax and what the best there would be without it."""

from __future__ import annotations

import dataclasses
import functools

from side_by_side.peers import Comparison, Group, Peer
from side_by_side.plan import STRENGTHS


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """The amount of work that is measured.

    Attributes:
      examples: digits that every peer trains on; a multiple of the batch size.
      seeds: trials per strength, where all trials are trained at once.
      few_seeds: the same for a few trials.
      many_seeds: the same for many trials.
      epochs: per round.
      rounds: rounds in which the peers take turns.
      warm_up: epochs before the rounds.
      starts_at_once: peers that start at the same time.
    """

    examples: int = 1024
    seeds: int = 25
    few_seeds: int = 4
    many_seeds: int = 256
    epochs: int = 10
    rounds: int = 3
    warm_up: int = 2
    starts_at_once: int = 10


TINY = GpuPlan(examples=64, seeds=1, few_seeds=1, many_seeds=1, epochs=1, rounds=1, warm_up=1, starts_at_once=2)


def one_hundred_trials(plan: GpuPlan) -> Group:
    """The same trials for all, in two precisions; peers that train one trial after the other need fewer of them."""
    all_trials = {"strengths": STRENGTHS, "seeds": plan.seeds, "epochs": plan.epochs, "rounds": plan.rounds}
    few = all_trials | {"seeds": plan.few_seeds}
    l2jax = functools.partial(Peer, script="l2jax_sweep", **all_trials)
    graph = functools.partial(Peer, script="torch_graph", needs=("torch",))
    stacked = functools.partial(Peer, script="torch_stacked", needs=("torch",), **all_trials)

    l2jax_tf32 = l2jax(name="l2jax, TF32", variant="tf32")
    l2jax_bfloat16 = l2jax(name="l2jax, bfloat16", variant="bfloat16")
    one_model = graph(name="PyTorch, one model after the other, CUDA graph, TF32", variant="tf32", **few)
    one_model_bfloat16 = graph(name="the same, bfloat16", variant="bfloat16", **few)
    four_processes = graph(name="the same in 4 processes, TF32", variant="tf32", processes=4, **few)
    fused_tf32 = (
        stacked(name="PyTorch, torch.func, compiled, CUDA graph, TF32", variant="func tf32"),
        stacked(name="PyTorch, grouped convolutions, TF32", variant="grouped tf32"),
        stacked(name="PyTorch, columns and baddbmm, TF32", variant="columns tf32"),
    )
    fused_bfloat16 = (
        stacked(name="PyTorch, grouped convolutions, bfloat16", variant="grouped bfloat16"),
        stacked(name="PyTorch, columns and baddbmm, bfloat16", variant="columns bfloat16"),
    )
    jax_vmap = Peer(name="JAX as tutorials write it: vmap, lax.scan", script="jax_vmap", **all_trials)
    peak = Peer(name="matrix products alone, TF32", script="device_peak", variant="tf32", rounds=plan.rounds)
    peak_bfloat16 = Peer(
        name="matrix products alone, bfloat16", script="device_peak", variant="bfloat16", rounds=plan.rounds
    )
    return Group(
        "the built-in network on a GPU",
        peers=(
            *(l2jax_tf32, l2jax_bfloat16, l2jax(name="l2jax, float32 in full", variant="float32")),
            *(one_model, one_model_bfloat16, four_processes, *fused_tf32, *fused_bfloat16),
            *(jax_vmap, peak, peak_bfloat16),
        ),
        comparisons=(
            Comparison("PyTorch, one model after the other, CUDA graph, TF32", l2jax_tf32, (one_model,), at_least=10),
            Comparison("the same in 4 processes", l2jax_tf32, (four_processes,)),
            Comparison("PyTorch, the best fused, TF32", l2jax_tf32, fused_tf32, at_least=1.5),
            Comparison("PyTorch, the best fused, bfloat16", l2jax_bfloat16, fused_bfloat16, at_least=1.5),
            Comparison("JAX as tutorials write it", l2jax_tf32, (jax_vmap,)),
            Comparison("matrix products alone, TF32", l2jax_tf32, (peak,)),
            Comparison("matrix products alone, bfloat16", l2jax_bfloat16, (peak_bfloat16,)),
        ),
        reference=l2jax_tf32,
        limit=peak,
    )


def other_sizes(plan: GpuPlan) -> Group:
    """l2jax, and PyTorch with columns, from one trial to many."""
    sizes = {1: (STRENGTHS[:1], 1), 16: (STRENGTHS, plan.few_seeds), 1024: (STRENGTHS, plan.many_seeds)}
    peers = []
    for size, (strengths, seeds) in sizes.items():
        for precision in ("tf32", "bfloat16") if size > 1 else ("tf32",):
            epochs = max(1, plan.epochs if size < 100 else plan.epochs // 5)
            work = {"strengths": strengths, "seeds": seeds, "epochs": epochs, "rounds": plan.rounds}
            peers.append(Peer(name=f"l2jax, {precision}", script="l2jax_sweep", variant=precision, **work))
            if size > 1:
                name, variant = f"PyTorch, columns and baddbmm, {precision}", f"columns {precision}"
                peers.append(Peer(name=name, script="torch_stacked", variant=variant, needs=("torch",), **work))
    return Group("other numbers of trials on a GPU", tuple(peers), ())
