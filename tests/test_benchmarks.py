"""The benchmark's arithmetic and processes. Measuring itself takes minutes, and other packages."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import many_trials  # noqa: E402
import profile_step  # noqa: E402
import throughput  # noqa: E402
from peers.peer import cores  # noqa: E402
from side_by_side import compare, figures, peers, plan  # noqa: E402
from side_by_side.machine import commit, machine  # noqa: E402
from side_by_side.measure import measure  # noqa: E402
from side_by_side.peers import Comparison, Group, Peer  # noqa: E402
from side_by_side.record import Measured, Record, Row  # noqa: E402
from side_by_side.table import markdown  # noqa: E402

PREAMBLE = f"""
import os, sys, time
sys.path.insert(0, {str(BENCHMARKS / "peers")!r})
from peer import cores, read_job, serve
job = read_job()
"""


@pytest.fixture
def peer(tmp_path):
    """Makes a peer from a few lines of Python."""

    def make(lines, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        path.with_suffix(".py").write_text(PREAMBLE + lines)
        defaults = {"strengths": (0.1, 0.2, 0.3), "seeds": 2, "epochs": 4, "rounds": 2}
        return Peer(name="a peer", script=str(path), **defaults | options)

    return make


def measured(peer, warm_up=1):
    return measure([peer], Path("unread.npz"), examples=100, warm_up=warm_up)[peer]


def test_rate_is_trial_examples_per_second_of_training(peer):
    row = measured(peer("serve(train=lambda epochs: {'seconds': epochs / 4}, losses=lambda: {'losses': job.l2})"))
    assert row.rates == [6 * 4 * 100 / 1] * 2
    assert row.losses == [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]
    assert row.start_seconds > 0
    assert row.peak_memory > 1e6


def test_warm_up_trains_the_given_number_of_epochs(peer):
    lines = """
trained = []
serve(train=lambda epochs: trained.append(epochs), losses=lambda: {'losses': [sum(trained)] * len(job.l2)})
"""
    assert np.unique(measured(peer(lines), warm_up=5).losses) == [5]


def test_time_is_measured_if_a_peer_reports_none(peer):
    row = measured(peer("serve(train=lambda epochs: time.sleep(0.05 * epochs), losses=lambda: {'losses': job.l2})"))
    assert all(6 * 4 * 100 / 1 < rate <= 6 * 4 * 100 / 0.2 for rate in row.rates)


def test_processes_share_the_trials_each_on_its_own_core(peer):
    lines = """
here = 100 * len(cores()) + cores()[0]
serve(train=lambda epochs: {'seconds': 1}, losses=lambda: {'losses': [here] * len(job.l2)})
"""
    num_seeds = len(cores()) + 1
    row = measured(peer(lines, seeds=num_seeds, process_per_core=True))
    expected = [100 + core for core in cores()]
    # The first core has two seeds, the others one.
    assert row.losses == [sorted([expected[0], *expected])] * 3
    assert row.trials == 3 * num_seeds
    assert row.rates == [row.trials * 400] * 2


def test_lines_that_libraries_print_are_ignored(peer):
    lines = "print('hello')\nserve(train=lambda epochs: print('epoch 1 of 1'), losses=lambda: {'losses': job.l2})"
    assert len(measured(peer(lines)).rates) == 2


def test_missing_package_is_named_in_a_skipped_row(peer):
    row = measured(peer("serve()", needs=("json", "no_such_package")))
    assert row == Row("a peer", 6, skipped="no_such_package not installed")


@pytest.mark.parametrize("when", ["warm-up", "round"])
def test_failed_peer_says_why_and_the_others_go_on(peer, when):
    lines = """
def train(epochs):
    if epochs > FROM: raise ValueError('too much')
serve(train=train, losses=lambda: {'losses': job.l2})
"""
    failing = peer(lines.replace("FROM", {"warm-up": "0", "round": "1"}[when]))
    fine = peer("serve(train=lambda epochs: None, losses=lambda: {'losses': job.l2})")
    rows = measure([failing, fine], Path("unread.npz"), examples=100, warm_up=1)
    assert rows[failing].failed == "ValueError: too much"
    assert len(rows[fine].rates) == 2


@pytest.mark.slow
def test_l2jax_trains_the_trials_of_its_job(tmp_path):
    throughput.write_digits(tmp_path / "digits.npz", 32)
    peer = Peer(name="l2jax", script="l2jax_sweep", strengths=(1e-3, 10.0), rounds=1)
    row = measure([peer], tmp_path / "digits.npz", examples=32, warm_up=20)[peer]
    weak, strong = np.squeeze(row.losses)
    # A penalty that outweighs the loss drives the kernels to 0: every class is then as likely as any other.
    assert weak < 2 < strong == pytest.approx(np.log(10), rel=0.02)
    assert row.rates[0] > 0
    assert row.compile_seconds > 0


def test_operations_per_example_equal_a_count_by_hand():
    conv1, conv2, dense = 26 * 26 * 9 * 32, 10 * 10 * 9 * 32 * 64, 1600 * 10
    # A multiplication and an addition each; forward, kernel gradient and, but for the first, input gradient.
    assert compare.flops_per_example() == 2 * (2 * conv1 + 3 * conv2 + 3 * dense)


def test_ratio_is_taken_per_round_to_the_fastest_of_the_others():
    ours, slow, fast, failed = (Row("", 1, rates) for rates in ([10, 20, 30], [1, 100, 1], [5, 4, 3], []))
    assert compare.ratios(ours, [slow, fast, failed]) == [2, 5, 10]
    assert compare.ratios(ours, [failed]) == []
    assert compare.ratios(failed, [slow, fast, failed]) == []
    fast.rates.pop()  # it took part in fewer rounds
    assert compare.ratios(ours, [slow, fast, failed]) == [2, 5]


def test_losses_are_compared_at_the_same_strengths():
    reference = Row("", 6, losses=[[1.0, 3.0], [4.0, 4.0], [10.0, 10.0]])
    assert compare.loss_ratio(Row("", 3, losses=[[2.2], [4.0], [9.0]]), reference) == 1.0
    assert compare.loss_ratio(Row("", 1, losses=[[2.2]]), reference) == pytest.approx(1.1)
    assert compare.loss_ratio(Row("", 1), reference) is None


@pytest.mark.parametrize("size", [plan.FULL, plan.QUICK])
def test_every_comparison_is_among_peers_that_are_measured(size):
    groups = peers.same_network(size), peers.larger_network(size), peers.more_trials(size)
    for group in groups:
        assert len({peer.name for peer in group.peers}) == len(group.peers)
        compared = {peer for comparison in group.comparisons for peer in (comparison.peer, *comparison.others)}
        assert compared <= set(group.peers)
        assert {group.reference, group.limit} <= {None, *group.peers}
    assert [peer.num_trials for peer in groups[2].peers] == list(size.sizes)


@pytest.fixture
def record():
    """A measurement with one peer skipped."""

    def peer(name, strengths, seeds, script=""):
        return Peer(name=name, script=script, strengths=(0.1, 0.2, 0.3, 0.4)[:strengths], seeds=seeds, rounds=3)

    def row(peer, *rates, **more):
        return Row(peer.name, peer.num_trials, list(rates), start_seconds=2.0, peak_memory=5e8, **more)

    l2jax, keras, torch = peer("l2jax", 4, 2, "l2jax_sweep"), peer("Keras", 4, 2), peer("PyTorch", 4, 2)
    vmap, peak = peer("JAX", 1, 1), peer("matrix products", 0, 0)
    comparisons = (
        Comparison("Keras 3 on TensorFlow", l2jax, (keras,), at_least=2.5),
        Comparison("PyTorch, the best of 4", l2jax, (torch, keras), at_least=1.5),
        Comparison("JAX as tutorials write it", l2jax, (vmap,), at_least=30),
        Comparison("matrix products alone, at the machine's peak", l2jax, (peak,), at_least=0.45),
        Comparison("a process per trial", l2jax, (keras,)),
    )
    same = {
        l2jax: row(l2jax, 12_000, 10_000, 11_000, losses=[[0.5, 0.7], [0.9, 1.1]]),
        keras: Row("Keras", 8, skipped="keras not installed"),
        torch: row(torch, 8_000, 8_000, 8_000, losses=[[0.7, 0.7], [1.2, 1.2]]),
        vmap: row(vmap, 250, losses=[[0.6]]),
        peak: row(peak, 20_000, 20_000, 20_000),
    }
    own, own_vmap = peer("larger", 2, 1, "l2jax_sweep"), peer("larger, by vmap", 2, 1)
    name = "a larger network, against JAX as tutorials write it"
    larger = {
        own: row(own, 2_000, 2_100, losses=[[2.0], [2.2]]),
        own_vmap: row(own_vmap, 40, losses=[[2.1], [2.2]]),
    }
    one, some, many = (peer(f"l2jax, {size}", 1, size, "l2jax_sweep") for size in (1, 16, 256))
    more = {peer: row(peer, 9_000, 9_500, compile_seconds=3.0) for peer in (one, some, many)}
    more_comparisons = (Comparison("l2jax: 256 trials against 16", many, (some,), at_least=0.9),)
    return Record(
        machine(),
        dataclasses.replace(plan.QUICK, rounds=3),
        Measured(Group("same", tuple(same), comparisons, reference=l2jax, limit=peak), same),
        Measured(Group("larger", tuple(larger), (Comparison(name, own, (own_vmap,), 10),), reference=own), larger),
        Measured(Group("more", tuple(more), more_comparisons), more),
    )


def named(measured, name):
    """The row of the peer of that name."""
    (row,) = (row for row in measured.rows.values() if row.name == name)
    return row


def cells(text, first):
    """The cells that follow this first one in its line of the table."""
    lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    (others,) = [line[1:] for line in lines if line[:1] == [first]]
    return others


def test_markdown_states_what_was_measured(record):
    text = markdown(record)
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
    assert cells(text, "a process per trial") == ["not measured", "", ""]
    assert f"{20_000 * compare.flops_per_example() / 1e9:.0f} (" in text
    assert "python 3." in text


def test_all_is_well_unless_a_peer_fails_or_learns_otherwise(record):
    assert not compare.all_is_well(record)
    torch, own_vmap = named(record.same_network, "PyTorch"), named(record.larger_network, "larger, by vmap")
    torch.losses = [[0.6, 0.6], [1.05, 1.05]]
    assert compare.all_is_well(record)  # nobody has to install all the peers
    torch.losses = [[float("nan")] * 2] * 2
    assert not compare.all_is_well(record)
    torch.losses = [[0.6, 0.6], [1.05, 1.05]]
    own_vmap.losses = [[2.3], [2.5]]
    assert not compare.all_is_well(record)
    own_vmap.losses = [[2.0], [2.2]]
    torch.failed = "out of memory"
    assert not compare.all_is_well(record)
    assert "PyTorch failed: out of memory" in markdown(record)


def test_json_holds_machine_plan_commit_and_rows(record):
    written = json.loads(json.dumps(record.to_json()))
    assert written["plan"]["rounds"] == 3
    assert written["same_network"][0]["rates"] == [12_000, 10_000, 11_000]
    assert [row["trials"] for row in written["more_trials"]] == [1, 16, 256]
    assert written.keys() >= {"commit", "dirty", "processor", "versions", "date", "larger_network"}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs Git")
def test_commit_is_that_of_the_folder_and_dirty_if_changed(tmp_path):
    assert commit(tmp_path) == {"commit": None, "dirty": None}

    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    clean = commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    (tmp_path / "changed").write_text("")
    assert commit(tmp_path) == clean | {"dirty": True}


def points(axes):
    """The points (x, y) of the only line."""
    (line,) = axes.lines
    return np.asarray(line.get_xydata())


def test_figures_show_the_measured_numbers(record, tmp_path):
    (axes,) = figures.rates(record).axes
    assert [text.get_text() for text in axes.texts[:3]] == ["250", "8,000", "11,000"]
    assert axes.texts[3].get_text().endswith(": 20,000")
    assert points(axes)[:, 0].tolist() == [20_000] * 2
    rates, compilation, memory = figures.sizes(record).axes
    assert points(rates).tolist() == [[1, 9_250], [16, 9_250], [256, 9_250]]
    assert points(compilation)[:, 1].tolist() == [3.0] * 3
    assert points(memory)[:, 1].tolist() == [500.0] * 3
    figures.rates(record).savefig(tmp_path / "rates.png")


def event(op, thread, start, duration):
    return {"pid": 1, "tid": thread, "ts": start, "dur": duration, "args": {"hlo_op": op}}


def test_time_of_an_operation_excludes_those_inside_it():
    events = [
        event("dot", 1, 1.0, 3.0),
        event("while", 1, 0.0, 10.0),
        event("dot", 1, 4.0, 2.0),
        event("add", 1, 10.0, 1.0),
        event("while", 2, 1.5, 4.0),
        event("copy", 3, 1.0, 3.0),
        event("dot", 3, 3.5, 2.0),  # on a GPU: begins a little early
    ]
    assert profile_step.self_times(events) == {"while": 9.0, "dot": 7.0, "add": 1.0, "copy": 3.0}


def test_operations_are_traced_to_their_line_of_source(tmp_path):
    network, training = tmp_path / "l2jax" / "network" / "cnn.py", tmp_path / "l2jax" / "trial" / "train.py"
    for source in (network, training):
        source.parent.mkdir(parents=True)
    network.write_text("    return conv(x, self.kernel)\n    x = self.conv2(x)\n")
    training.write_text("grads = grad(objective)\nsum(kernel**2)\n")
    program = f"""HloModule jit_f, is_scheduled=true

FileNames
1 "{network}"
2 "{training}"
3 "/elsewhere/cnn.py"

FunctionNames
1 "CNN.__call__"
2 "conv"

FileLocations
1 {{file_name_id=2 function_name_id=1 line=1 end_line=1 column=0 end_column=0}}
2 {{file_name_id=1 function_name_id=1 line=2 end_line=2 column=0 end_column=0}}
3 {{file_name_id=1 function_name_id=1 line=1 end_line=1 column=0 end_column=0}}
4 {{file_name_id=3 function_name_id=2 line=9 end_line=9 column=0 end_column=0}}
5 {{file_name_id=2 function_name_id=1 line=2 end_line=2 column=0 end_column=0}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}
3 {{file_location_id=3 parent_frame_id=3}}
4 {{file_location_id=4 parent_frame_id=4}}
5 {{file_location_id=5 parent_frame_id=2}}
6 {{file_location_id=4 parent_frame_id=1}}

ENTRY %main (p: f32[4]) -> f32[8,4] {{
  %p = f32[4]{{0}} parameter(0)
  %dot.7 = f32[8,4]{{1,0}} dot(%p), metadata={{op_name="jit(f)/transpose(jvp())/dot_general" stack_frame_id=4}}
  %add.2 = f32[8,4]{{1,0}} add(%p, %p), metadata={{op_name="jit(f)/add" stack_frame_id=5}}
  %sort.1 = f32[8,4]{{1,0}} sort(%p), metadata={{op_name="jit(f)/sort" stack_frame_id=6}}
  ROOT %fusion.1 = f32[8,4]{{1,0}} fusion(%dot.7), metadata={{op_name="jit(f)/jvp()/max" stack_frame_id=2}}
}}
"""
    assert profile_step.operations(program) == {
        "dot.7": profile_step.Operation("f32[8,4]", "dot_general", "backward", "x = self.conv2(x)", "dot"),
        "add.2": profile_step.Operation("f32[8,4]", "add", "", "sum(kernel**2)", "add"),
        "sort.1": profile_step.Operation("f32[8,4]", "sort", "", "", "sort"),
        "fusion.1": profile_step.Operation("f32[8,4]", "max", "forward", "x = self.conv2(x)", "fusion"),
    }


def test_many_trials_measures_every_step(tmp_path, capsys):
    axes = many_trials.axes_of("grid", 500)
    assert many_trials.fill_ledger(axes).num_records == many_trials.NUM_EPOCHS
    many_trials.measure("seeds", 400, tmp_path)
    measured = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(seconds > 0 and peak > 1e7 for _, seconds, peak, _ in measured)
    sizes = {name: size for name, _, _, size in measured}
    assert list(sizes)[:2] == ["ledger", "collect"] and list(sizes)[-1] == "report.html"
    for name in ("validation_curve.png", "report.html"):
        assert sizes[name] == (tmp_path / name).stat().st_size
