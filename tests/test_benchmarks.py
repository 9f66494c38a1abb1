"""The benchmark's arithmetic and its dealings with processes; to measure takes minutes, and other packages."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import pictures  # noqa: E402
import profile_step  # noqa: E402
import report  # noqa: E402
import throughput  # noqa: E402
from peers.peer import cores  # noqa: E402
from running import Peer  # noqa: E402

PREAMBLE = f"""
import os, sys, time
sys.path.insert(0, {str(BENCHMARKS / "peers")!r})
from peer import cores, given_job, serve
job = given_job()
"""


@pytest.fixture
def peer(tmp_path):
    """Makes a peer of a few lines of Python."""

    def make(lines, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        path.with_suffix(".py").write_text(PREAMBLE + lines)
        defaults = {"strengths": (0.1, 0.2, 0.3), "seeds": 2, "epochs": 4, "rounds": 2}
        return Peer("a peer", str(path), **defaults | options)

    return make


def measured(peer, warm_up=1):
    return throughput.measure({"peer": peer}, Path("unread.npz"), 100, warm_up)["peer"]


def test_rates_are_trial_examples_a_second_of_training(peer):
    row = measured(peer("serve(train=lambda epochs: {'seconds': epochs / 4}, losses=lambda: {'losses': job.l2})"))
    assert row["rates"] == [6 * 4 * 100 / 1] * 2
    assert row["losses"] == [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]
    assert row["start_seconds"] > 0
    assert row["peak_memory"] > 1e6


def test_warm_up_is_as_many_epochs_as_asked_for(peer):
    lines = """
seen = []
serve(train=lambda epochs: seen.append(epochs), losses=lambda: {'losses': [sum(seen)] * len(job.l2)})
"""
    assert np.unique(measured(peer(lines), warm_up=5)["losses"]) == [5]


def test_time_is_measured_where_a_peer_does_not_tell(peer):
    row = measured(peer("serve(train=lambda epochs: time.sleep(0.05 * epochs), losses=lambda: {'losses': job.l2})"))
    assert all(6 * 4 * 100 / 1 < rate <= 6 * 4 * 100 / 0.2 for rate in row["rates"])


def test_processes_share_the_trials_each_on_a_core_of_its_own(peer):
    lines = """
place = 100 * len(cores()) + cores()[0]
serve(train=lambda epochs: {'seconds': 1}, losses=lambda: {'losses': [place] * len(job.l2)})
"""
    num_seeds = len(cores()) + 1
    row = measured(peer(lines, seeds=num_seeds, process_a_core=True))
    expected = [100 + core for core in cores()]
    # The first core has two seeds, the others one.
    assert row["losses"] == [sorted([expected[0], *expected])] * 3
    assert row["trials"] == 3 * num_seeds
    assert row["rates"] == [row["trials"] * 400] * 2


def test_what_libraries_print_is_no_answer(peer):
    lines = "print('hello')\nserve(train=lambda epochs: print('epoch 1 of 1'), losses=lambda: {'losses': job.l2})"
    assert len(measured(peer(lines))["rates"]) == 2


def test_peer_that_is_not_installed_is_named_as_skipped(peer):
    row = measured(peer("serve()", needs=("json", "no_such_package")))
    assert row == {"name": "a peer", "trials": 6, "skipped": "no_such_package not installed"}


@pytest.mark.parametrize("when", ["warm-up", "round"])
def test_peer_that_fails_tells_why_and_the_others_go_on(peer, when):
    lines = """
def train(epochs):
    if epochs > FROM: raise ValueError('too much')
serve(train=train, losses=lambda: {'losses': job.l2})
"""
    failing = peer(lines.replace("FROM", {"warm-up": "0", "round": "1"}[when]))
    fine = peer("serve(train=lambda epochs: None, losses=lambda: {'losses': job.l2})")
    rows = throughput.measure({"failing": failing, "fine": fine}, Path("unread.npz"), 100, 1)
    assert rows["failing"]["failed"] == "ValueError: too much"
    assert len(rows["fine"]["rates"]) == 2


@pytest.mark.slow
def test_l2jax_trains_the_trials_that_it_is_given(tmp_path):
    throughput.digits(32, tmp_path / "digits.npz")
    peer = Peer("l2jax", "l2jax_sweep", strengths=(1e-3, 10.0), seeds=1, epochs=1, rounds=1)
    row = throughput.measure({"l2jax": peer}, tmp_path / "digits.npz", 32, warm_up=20)["l2jax"]
    weak, strong = np.squeeze(row["losses"])
    # Where the penalty is all that counts the kernels vanish, and a guess is what is left.
    assert weak < 2 < strong == pytest.approx(np.log(10), rel=0.02)
    assert row["rates"][0] > 0
    assert row["compile_seconds"] > 0


def test_operations_counted_by_hand():
    conv1, conv2, dense = 26 * 26 * 9 * 32, 10 * 10 * 9 * 32 * 64, 1600 * 10
    # A multiplication and an addition each; forward, kernel gradient and, but for the first, input gradient.
    assert report.flops_per_example() == 2 * (2 * conv1 + 3 * conv2 + 3 * dense)


def test_ratio_is_taken_round_by_round_to_the_best_of_the_others():
    rows = {"own": {"rates": [10, 20, 30]}, "slow": {"rates": [1, 100, 1]}, "best": {"rates": [5, 4, 3]}, "gone": {}}
    comparison = report.Comparison("", "own", ("slow", "best", "gone", "unknown"), None)
    assert report.ratios(rows, comparison) == [2, 5, 10]
    assert report.ratios(rows, comparison._replace(others=("gone",))) == []
    assert report.ratios(rows, comparison._replace(row="gone")) == []
    rows["best"]["rates"].pop()  # it took part in fewer rounds
    assert report.ratios(rows, comparison) == [2, 5]


def test_losses_are_compared_at_the_same_strengths():
    reference = {"losses": [[1.0, 3.0], [4.0, 4.0], [10.0, 10.0]]}
    assert report.loss_ratio({"losses": [[2.2], [4.0], [9.0]]}, reference) == 1.0
    assert report.loss_ratio({"losses": [[2.2]]}, reference) == pytest.approx(1.1)
    assert report.loss_ratio({}, reference) is None


@pytest.fixture
def record():
    """A measurement as it is written to disk, with one peer skipped."""

    def row(name, trials, *rates, **more):
        return {"name": name, "trials": trials, "rates": list(rates), "start_seconds": 2.0, "peak_memory": 5e8, **more}

    table = {
        "l2jax": row("l2jax", 8, 12_000, 10_000, 11_000, losses=[[0.5, 0.7], [0.9, 1.1]]),
        "keras": {"name": "Keras", "trials": 8, "skipped": "keras not installed"},
        "torch": row("PyTorch", 8, 8_000, 8_000, 8_000, losses=[[0.7, 0.7], [1.2, 1.2]]),
        "jax_vmap": row("JAX", 1, 250, losses=[[0.6]]),
        "peak": row("matrix products", 0, 20_000, 20_000, 20_000),
    }
    own = {
        "own": row("larger", 2, 2_000, 2_100, losses=[[2.0], [2.2]]),
        "own_vmap": row("larger, by vmap", 2, 40, losses=[[2.1], [2.2]]),
    }
    sizes = {f"l2jax_{size}": row("l2jax", size, 9_000, 9_500, compile_seconds=3.0) for size in (1, 16, 256)}
    plan = throughput.QUICK._replace(rounds=3)._asdict()
    return json.loads(json.dumps({**report.header(), "plan": plan, "table": table, "own": own, "sizes": sizes}))


def cells(text, first):
    """The table line with this in its first cell, without it."""
    lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    (found,) = [line[1:] for line in lines if line[:1] == [first]]
    return found


def test_report(record):
    text = report.markdown(record)
    assert cells(text, "l2jax") == ["8", "11,000 (10,000 to 12,000)", "2.0", "500", "+0%"]
    assert cells(text, "PyTorch")[-1] == "+18% DIFFERS"
    assert cells(text, "Keras") == ["8", "skipped: keras not installed", "", "", ""]
    assert cells(text, "Keras 3 on TensorFlow") == ["not measured", "2.5", ""]
    assert cells(text, "PyTorch, the best of 4") == ["1.38 (1.25 to 1.50)", "1.5", "falls short"]
    assert cells(text, "JAX as tutorials write it") == ["48 (48 to 48)", "30", "met"]
    assert cells(text, "matrix products alone, at the machine's peak") == ["0.55 (0.50 to 0.60)", "0.45", "met"]
    assert cells(text, "l2jax: 256 trials against 16") == ["1.00 (1.00 to 1.00)", "0.9", "met"]
    assert cells(text, "larger, by vmap") == ["2", "40 (40 to 40)", "2.0", "500", "+2%"]
    assert cells(text, "a larger network, against JAX as tutorials write it") == ["50 (50 to 50)", "10", "met"]
    assert cells(text, "256") == ["9,250 (9,000 to 9,500)", "3.0", "500"]
    assert f"{20_000 * report.flops_per_example() / 1e9:.0f} (" in text
    assert "python 3." in text


def test_all_is_well_unless_a_peer_fails_or_learns_something_else(record):
    assert not report.all_is_well(record)
    record["table"]["torch"]["losses"] = [[0.6, 0.6], [1.05, 1.05]]
    assert report.all_is_well(record)  # nobody has to install all the peers
    record["table"]["torch"]["losses"] = [[float("nan")] * 2] * 2
    assert not report.all_is_well(record)
    record["table"]["torch"]["losses"] = [[0.6, 0.6], [1.05, 1.05]]
    record["own"]["own_vmap"]["losses"] = [[2.3], [2.5]]
    assert not report.all_is_well(record)
    record["own"]["own_vmap"]["losses"] = [[2.0], [2.2]]
    record["table"]["torch"] = {"name": "PyTorch", "trials": 8, "failed": "out of memory"}
    assert not report.all_is_well(record)
    assert "PyTorch failed: out of memory" in report.markdown(record)


def drawn(axes):
    """The points (x, y) of the only line."""
    (line,) = axes.lines
    return np.asarray(line.get_xydata())


def test_pictures_show_what_was_measured(record, tmp_path):
    (axes,) = pictures.rates(record).axes
    assert [text.get_text() for text in axes.texts[:3]] == ["250", "8,000", "11,000"]
    assert axes.texts[3].get_text().endswith(": 20,000")
    assert drawn(axes)[:, 0].tolist() == [20_000] * 2
    rates, compilation, memory = pictures.sizes(record).axes
    assert drawn(rates).tolist() == [[1, 9_250], [16, 9_250], [256, 9_250]]
    assert drawn(compilation)[:, 1].tolist() == [3.0] * 3
    assert drawn(memory)[:, 1].tolist() == [500.0] * 3
    pictures.rates(record).savefig(tmp_path / "rates.png")


def event(op, thread, start, duration):
    return {"pid": 1, "tid": thread, "ts": start, "dur": duration, "args": {"hlo_op": op}}


def test_time_of_an_operation_is_without_those_within_it():
    events = [
        event("dot", 1, 1.0, 3.0),
        event("while", 1, 0.0, 10.0),
        event("dot", 1, 4.0, 2.0),
        event("add", 1, 10.0, 1.0),
        event("while", 2, 1.5, 4.0),
    ]
    assert profile_step.self_times(events) == {"while": 9.0, "dot": 5.0, "add": 1.0}


def test_operations_are_traced_to_the_line_that_they_come_from(tmp_path):
    source = tmp_path / "l2jax" / "model.py"
    source.parent.mkdir()
    source.write_text("# CNN\n    x = conv(x, self.conv2)\n")
    program = f"""HloModule jit_f, is_scheduled=true

FileNames
1 "{source}"
2 "/elsewhere/ops.py"

FunctionNames
1 "CNN.__call__"
2 "conv"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=2 end_line=2 column=0 end_column=0}}
2 {{file_name_id=2 function_name_id=2 line=9 end_line=9 column=0 end_column=0}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}

ENTRY %main (p: f32[4]) -> f32[8,4] {{
  %p = f32[4]{{0}} parameter(0)
  %dot.7 = f32[8,4]{{1,0}} dot(%p), metadata={{op_name="jit(f)/transpose(jvp())/dot_general" stack_frame_id=2}}
  ROOT %fusion.1 = f32[8,4]{{1,0}} fusion(%dot.7), metadata={{op_name="jit(f)/jvp()/max" stack_frame_id=1}}
}}
"""
    line = "x = conv(x, self.conv2)"
    found = profile_step.operations(program)
    assert found["dot.7"] == profile_step.Operation("f32[8,4]", "dot_general", "backward", line)
    assert found["fusion.1"] == profile_step.Operation("f32[8,4]", "max", "forward", line)
