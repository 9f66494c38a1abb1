"""Measures which operations the time of a training step is spent on.

    python benchmarks/profile_step.py [NETWORK] [--seeds 4] [--trace FILE]

NETWORK is one of `peers/flax_networks.py`; without it, the built-in network is trained.
Traces one warm epoch of a small sweep with `jax.profiler` and adds up the time that each compiled operation itself
took, per trial and step. The compiled program says which line of the network or of the training an operation comes
from, and whether it belongs to the forward or to the backward pass. The gradient of a kernel has the kernel's shape:
(3 * 3 * 32, 64) in the second convolution. The last table says what XLA made of each JAX primitive: a `convolution`,
`reduce-window` or `select-and-scatter` there that takes long is one that no rule of `l2jax.rewrite` has replaced.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import linecache
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES, BATCH = 640, 32
NETWORKS, TRAINING = ("l2jax/network/cnn.py", "benchmarks/peers/flax_networks.py"), "l2jax/trial/train.py"
"""Files whose lines operations are attributed to."""
LEAST_SHARE = 0.005
"""Operations that take a smaller share of the time are left out of the tables."""
NANOSECOND = 1e-3
"""In microseconds, the unit of a trace."""


class Operation(NamedTuple):
    """A compiled operation, as the program describes it.

    Attributes:
      shape: of its output.
      primitive: the JAX primitive that it was compiled from.
      stage: "forward", "backward", or neither.
      line: the line of source that it comes from, in the network or else in the training; empty if it is in neither.
      opcode: what XLA calls it; its libraries' operations are fusions with names of their own, such as "ynn_fusion".
    """

    shape: str
    primitive: str
    stage: str
    line: str
    opcode: str


def trace(folder: Path, network: str, seeds: int) -> tuple[list[dict[str, Any]], dict[str, Operation]]:
    """Trains a sweep of a network, the built-in one if "": the events of an epoch, and its operations by name."""
    # XLA reads its flags when JAX starts.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_xprof_traceme=true"
        f" --xla_dump_to={folder} --xla_dump_hlo_as_text"
        # On a GPU, a step is otherwise one CUDA graph, whose parts the trace does not name.
        " --xla_gpu_enable_command_buffer="
    )
    from peers.flax_networks import NETWORKS as MODELS
    from throughput import digits

    import l2jax

    images, labels = digits(EXAMPLES + 10, coloured=network not in ("", "article"))
    data = l2jax.Dataset("digits", images, labels, num_classes=10)
    config = l2jax.SweepConfig(l2=(1e-3,), seeds=seeds, epochs=2, train_size=EXAMPLES, val_size=10, batch_size=BATCH)
    for _ in l2jax.Sweep(config, data, model=MODELS[network] if network else None).epochs(profile=folder):
        pass
    (path,) = folder.glob("**/*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    events = [event for event in events if event.get("ph") == "X" and "hlo_op" in event.get("args", {})]
    names = {event["args"]["hlo_op"] for event in events}
    programs = [operations(path.read_text()) for path in folder.glob("*after_optimizations.txt")]
    return events, max(programs, key=lambda program: len(names & program.keys()))


def self_times(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Microseconds by operation, excluding operations inside it, such as the body of a loop."""
    threads = collections.defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    times: dict[str, float] = collections.defaultdict(float)
    for thread in threads.values():
        within: list[dict[str, Any]] = []
        for event in sorted(thread, key=lambda event: (event["ts"], -event["dur"])):
            # On a GPU, an operation may begin before the last one has ended. It is not inside it.
            while within and within[-1]["ts"] + within[-1]["dur"] + NANOSECOND < event["ts"] + event["dur"]:
                within.pop()
            if within:
                times[within[-1]["args"]["hlo_op"]] -= event["dur"]
            times[event["args"]["hlo_op"]] += event["dur"]
            within.append(event)
    return times


def operations(program: str) -> dict[str, Operation]:
    """The operations of a compiled program, in XLA's text, by name."""
    tables = re.split(r"^(?:FileNames|FunctionNames|FileLocations|StackFrames)$", program, flags=re.MULTILINE)[1:]
    files, _, locations, frames = (dict(re.findall(r"^(\d+) (.*)", table, re.MULTILINE)) for table in tables)

    def source_line(frame: str) -> str:
        """The outermost call in the network, which names the layer; without one, the innermost in the training."""
        calls: dict[str, list[str]] = {file: [] for file in (*NETWORKS, TRAINING)}  # from the innermost outwards
        while frame != "0":
            location, parent = re.findall(r"=(\d+)", frames[frame])
            file, _, line, *_ = re.findall(r"=(\d+)", locations[location])
            path = Path(files[file].strip('"'))
            calls.get("/".join(path.parts[-3:]), []).append(linecache.getline(str(path), int(line)).strip())
            frame = str(int(parent) - 1)
        return [*(line for file in NETWORKS for line in reversed(calls[file])), *calls[TRAINING], ""][0]

    by_name = {}
    for name, shape, opcode, metadata in re.findall(
        r"^ *(?:ROOT )?%(\S+) = (\S+?)[{ ](?:.*? )?([a-z][a-z-]*)\(.*?metadata=\{(.*)\}", program, re.MULTILINE
    ):
        path = re.search(r'op_name="(.*?)"', metadata)
        frame = re.search(r"stack_frame_id=(\d+)", metadata)
        path = path[1] if path else ""
        stage = "backward" if "transpose(" in path else "forward" if "jvp(" in path else ""
        by_name[name] = Operation(shape, path.rpartition("/")[2], stage, source_line(frame[1]) if frame else "", opcode)
    return by_name


def show(times: dict[str, float], program: dict[str, Operation]) -> None:
    """Prints times (microseconds by name of the operation): by line of the source, then by kind of operation."""
    lines: dict[tuple[str, ...], float] = collections.defaultdict(float)
    kinds: dict[tuple[str, ...], float] = collections.defaultdict(float)
    opcodes: dict[tuple[str, ...], float] = collections.defaultdict(float)
    for name, time in times.items():
        operation = program.get(name, Operation("", "", "", "", ""))
        line = operation.line or "(loops, copies, the order of the examples)"
        lines[f"{operation.stage:8}", line] += time
        kinds[f"{operation.stage:8}", f"{operation.primitive:20}", f"{operation.shape:20}", line] += time
        opcode = name.rpartition(".")[0] if name.startswith("ynn") else operation.opcode
        opcodes[f"{operation.primitive:24}", f"as {opcode or 'unknown'}"] += time
    total = sum(times.values())
    print(f"{total:.2f} us per trial and step")
    for title, table in (("By line of the source", lines), ("By operation", kinds), ("As XLA runs them", opcodes)):
        print(f"\n{title}, down to {LEAST_SHARE:.1%} of the time:")
        for words, time in sorted(table.items(), key=lambda item: -item[1]):
            if time >= LEAST_SHARE * total:
                print(f"{time:9.2f} us {time / total:4.0%}  {'  '.join(words)}"[:140])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures which operations the time of a training step is spent on.")
    parser.add_argument("network", nargs="?", default="", help="of peers/flax_networks.py (default: the built-in one)")
    parser.add_argument("--seeds", type=int, default=4, help="trials to train")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="keep the trace, for ui.perfetto.dev")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events, program = trace(Path(folder), options.network, options.seeds)
        if options.trace:
            (path,) = Path(folder).glob("**/*.trace.json.gz")
            shutil.copy(path, options.trace)
    trial_steps = options.seeds * EXAMPLES // BATCH
    show({name: time / trial_steps for name, time in self_times(events).items()}, program)


if __name__ == "__main__":
    main()
