import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from flax import nnx

import l2jax
from l2jax import cli
from l2jax.config import RECIPES, SweepConfig
from l2jax.results.brief import brief
from l2jax.run import saving
from l2jax.run.folder import make_run_dir
from l2jax.run.options import RunOptions

ROOT = Path(__file__).parent.parent
TINY = ["--train-size", "70", "--val-size", "32", "--epochs", "2", "--l2", "0", "1e-2", "--seeds", "2"]


def command(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# Options


def test_no_words_give_the_defaults():
    assert cli.parse([]) == cli.Command(SweepConfig(), RunOptions())


def test_every_option_is_read():
    words = (
        "--l2 0 log:1e-3:1e-1:3 --seeds 5 --epochs 7 --batch-size 8 --learning-rate 1e-2 --train-size all "
        "--weight-decay 0 0.1 --label-smoothing 0.1 --val-size test --folds 1 --label-noise 0.2 --dataset digits "
        "--image-size 32 --data-dir elsewhere --bfloat16 --devices 2 --trials-at-once 6 --autotune --run-dir here "
        "--profile there --quiet --l1 0 1e-4 --l2-on conv* --model net.py:Net --optimizer lion "
        "--hyperparameter dropout 0 0.5 --hyperparameter=b1 0.8"
    )
    command = cli.parse(words.split())
    assert command.sweep == SweepConfig(
        l2=(0.0, 1e-3, 1e-2, 1e-1),
        seeds=5,
        epochs=7,
        batch_size=8,
        learning_rate=(0.01,),
        weight_decay=(0.0, 0.1),
        label_smoothing=(0.1,),
        train_size=None,
        val_size="test",
        label_noise=0.2,
        dataset="digits",
        image_size=32,
        data_dir="elsewhere",
        bfloat16=True,
        devices=2,
        trials_at_once=6,
        autotune=True,
        l1=(0.0, 1e-4),
        l2_on="conv*",
        model="net.py:Net",
        optimizer="lion",
        hyperparameters={"dropout": (0.0, 0.5), "b1": (0.8,)},
    )
    assert command.run == RunOptions(run_dir=Path("here"), profile=Path("there"), quiet=True)


def test_sizes_may_be_fractions():
    sweep = cli.parse(["--train-size", "0.8", "--val-size", "0.2"]).sweep
    assert (sweep.train_size, sweep.val_size) == (0.8, 0.2)


def test_the_last_word_on_an_option_counts():
    assert cli.parse(["--seeds", "3", "--val-size", "9", "--seeds", "5"]).sweep == SweepConfig(seeds=5, val_size=9)


def test_options_change_parts_of_a_recipe():
    assert cli.parse(["--recipe", "article"]).sweep == RECIPES["article"]
    changed = cli.parse(["--recipe=article", "--folds", "5", "--l2", "0"]).sweep
    assert changed == dataclasses.replace(RECIPES["article"], folds=5, l2=(0.0,))


def test_other_data_sets_than_the_embedded_one_are_trained_on_whole():
    for words, train_size in {
        "": 400,
        "--dataset mnist_small": 400,
        "--dataset mnist": None,
        "--dataset ./photos --image-size 32": None,
        "--dataset mnist --train-size 400": 400,
        "--dataset mnist --train-size auto": None,
        "--train-size all": None,
        "--recipe quick --dataset mnist": None,
        "--recipe article": None,
        "--recipe article --dataset mnist_small": None,
        "--recipe article --train-size auto --dataset mnist_small": 400,
    }.items():
        assert cli.parse(words.split()).sweep.train_size == train_size, words


@pytest.mark.parametrize("words", ["", "--dataset mnist", "--dataset mnist --train-size 400", "--recipe article"])
def test_a_run_is_resumed_with_the_size_that_it_had(words, tmp_path):
    before = cli.parse(words.split()).sweep
    (tmp_path / "config.json").write_text(json.dumps({"sweep": dataclasses.asdict(before)}))
    resume = ["--resume", str(tmp_path)]
    assert cli.parse(resume).sweep == before
    assert cli.parse([*resume, "--seeds", "8"]).sweep == dataclasses.replace(before, seeds=8)
    with pytest.raises(l2jax.InputError, match=f"^dataset: got kmnist; accepted: {before.dataset}, as in the run"):
        cli.parse([*resume, "--dataset", "kmnist"])


def test_the_article_recipe_is_in_keras_convention():
    """Keras' regularizers.l2(c) adds c * sum(kernel**2), of which the half is l2."""
    article = RECIPES["article"]
    assert [l2 / 2 for l2 in article.l2] == [0, 1e-4, 1e-3, 1e-2, 1e-1]
    assert (article.dataset, article.train_size, article.val_size) == ("mnist", None, "test")
    assert (article.epochs, article.batch_size, article.learning_rate) == (20, 32, (1e-3,))


def test_recipes_are_listed_as_options_that_make_them(capsys):
    assert cli.main(["--list-recipes"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() == RECIPES.keys()
    assert lines.pop("quick") == "the default"
    for name, words in lines.items():
        assert cli.parse(words.split()).sweep == RECIPES[name]


def test_help_has_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    shown = {"l2": "0 log:1e-3:1e-1:3", "learning_rate": "0.001", "l2_on": "'*'"}
    shown |= dict.fromkeys(("l1", "weight_decay", "label_smoothing"), "0")
    shown |= dict.fromkeys(("devices", "trials_at_once"), "all")
    shown |= dict.fromkeys(("hyperparameters", "model", "image_size", "data_dir"), "none")
    shown |= dict.fromkeys(("run_dir", "resume", "profile", "ray", "storage"), "none")
    for field in dataclasses.fields(cli._Options):
        line = re.search(rf"{cli.FLAGS[field.name]} [^()]*\(default: ([^)]*)\)", text)
        assert line, field.name
        assert line[1] == shown.get(field.name, str(field.default))


def test_help_waits_for_no_heavy_import():
    heavy = {"jax", "flax", "matplotlib", "pandas", "xarray", "tensorflow_datasets"}
    program = f"""
import sys
from l2jax import cli
try:
    cli.main(["--help"])
except SystemExit:
    print("loaded:", *sorted({heavy} & set(sys.modules)))
"""
    assert command("-c", program).stdout.splitlines()[-1] == "loaded:"


def test_what_libraries_log_is_not_printed():
    log = "import logging; logging.getLogger('matplotlib').warning('a temporary cache directory')"
    finished = command("-c", f"from l2jax import cli; cli.main(['--seeds', '0']); {log}")
    assert finished.stderr.startswith("error: --seeds: got 0") and finished.stderr.count("\n") == 1


def test_every_way_in_is_the_same():
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["l2jax"]
    assert script == "l2jax.cli:main"
    by_file, by_module = command(str(ROOT / "run_sweep.py"), "--help"), command("-m", "l2jax", "--help")
    assert by_file.returncode == by_module.returncode == 0
    assert by_file.stdout == by_module.stdout != ""


# Bad input


@pytest.mark.parametrize(
    ("words", "option", "given"),
    [
        ("--l2", "--l2", "nothing"),
        ("--l2 0 -1", "--l2", "-1"),
        ("--l2 -inf", "--l2", "-inf"),
        ("--l2 nan", "--l2", "nan"),
        ("--l2 1e400", "--l2", "1e400"),
        ("--l2 strong", "--l2", "strong"),
        ("--l2 1e-3 0.001", "--l2", "0.001"),
        ("--l2 log:1:0.1:3", "--l2", "log:1:0.1:3"),
        ("--l2 0 --l2 1e-2", "--l2", "it twice"),
        ("--learning-rate=3 --learning_rate 3", "--learning-rate", "it twice"),
        ("--l2 1e-46", "--l2", "1e-46"),
        ("--val-size 1.5", "--val-size", "1.5"),
        ("--seeds 0", "--seeds", "0"),
        ("--seeds 1.5", "--seeds", "1.5"),
        ("--seeds", "--seeds", "nothing"),
        ("--seeds=", "--seeds", "nothing"),
        ("--seeds 2 3", "--seeds", "2 3"),
        ("--seeds 500000", "--seeds", "500000"),
        ("--epochs -1", "--epochs", "-1"),
        ("--epochs 1e400", "--epochs", "1e400"),
        ("--batch-size 0", "--batch-size", "0"),
        ("--batch-size 65 --train-size 64", "--batch-size", "65"),
        ("--batch-size 99999 --train-size all", "--batch-size", "99999"),
        ("--learning-rate 0", "--learning-rate", "0"),
        ("--learning-rate inf", "--learning-rate", "inf"),
        ("--learning-rate 1e-3 fast", "--learning-rate", "fast"),
        ("--weight-decay -1", "--weight-decay", "-1"),
        ("--label-smoothing 1", "--label-smoothing", "1"),
        ("--label-noise 2", "--label-noise", "2.0"),
        ("--folds 0", "--folds", "0"),
        ("--folds 401", "--folds", "401"),
        ("--folds 400 --batch-size 400", "--batch-size", "400"),
        ("--recipe", "--recipe", "nothing"),
        ("--recipe cake", "--recipe", "cake"),
        ("--recipe quick --recipe=cake", "--recipe", "cake"),
        ("--data-dir", "--data-dir", "nothing"),
        ("--val-size tests", "--val-size", "tests"),
        ("--train-size 0", "--train-size", "0"),
        ("--train-size none", "--train-size", "none"),
        ("--train-size 1000000", "--train-size", "1000000"),
        ("--val-size 0", "--val-size", "0"),
        ("--val-size 1000000 --train-size all", "--val-size", "1000000"),
        ("--dataset mnist_smal", "--dataset", "mnist_smal"),
        ("--dataset", "--dataset", "nothing"),
        ("--image-size 0", "--image-size", "0"),
        ("--image-size small", "--image-size", "small"),
        ("--image-size 32", "--image-size", "32"),
        ("--devices 0", "--devices", "0"),
        ("--devices one", "--devices", "one"),
        ("--trials-at-once -1", "--trials-at-once", "-1"),
        ("--bfloat16=yes", "command line", "yes"),
        ("--profile", "--profile", "nothing"),
        ("--profile a b", "--profile", "a b"),
        ("--profile full", "--profile", "full"),
        ("--profile full/file/new", "--profile", "full/file/new"),
        ("--run-dir", "--run-dir", "nothing"),
        ("--run-dir a b", "--run-dir", "a b"),
        ("--run-dir full", "--run-dir", "full"),
        ("--run-dir full/file", "--run-dir", "full/file"),
        ("--run-dir full/file/new", "--run-dir", "full/file/new"),
        ("--epoch 3", "command line", "--epoch"),
        ("--quiet=1", "command line", "1"),
        ("--no-quiet", "command line", "--no-quiet"),
        ("stray", "command line", "stray"),
        ("-5", "command line", "-5"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, option, given, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {option}: got {re.escape(given)}; accepted: .+\n", err)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "full", tmp_path / "full" / "file"]


def test_a_mistyped_option_is_told_the_nearest(capsys):
    cli.main(["--batchsize", "16"])
    assert "accepted: --batch-size or" in capsys.readouterr().err


# Runs


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    finished = command(str(ROOT / "run_sweep.py"), *TINY, "--run-dir", str(run_dir))
    assert finished.returncode == 0, finished.stderr
    return run_dir, finished


def test_run_folder_is_complete(tiny_run):
    run_dir, _ = tiny_run
    assert {path.name for path in run_dir.iterdir()} == {
        ".lock",
        "SHA256SUMS",
        "best_params.npz",
        "checkpoints",
        "config.json",
        "kernel_magnitudes.png",
        "loss_curves.png",
        "metrics.jsonl",
        "objective_curves.png",
        "overfitting.png",
        "report.html",
        "results.nc",
        "summary.csv",
        "validation_curve.png",
    }
    for figure in run_dir.glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert len(pd.read_csv(run_dir / "summary.csv")) == 4


def test_run_can_be_repeated_from_its_config(tiny_run):
    run_dir, _ = tiny_run
    config = json.loads((run_dir / "config.json").read_text())
    assert SweepConfig(**config["sweep"]) == cli.parse(TINY).sweep
    assert (config["image_shape"], config["num_classes"], config["program_sha256"]) == ([28, 28, 1], 10, None)


def test_best_parameters_load_as_the_docs_say(tiny_run, digits):
    run_dir, _ = tiny_run
    page = (ROOT / "docs" / "run_folder.md").read_text()
    (example,) = re.findall(r"<!-- tests/test_cli.py runs this -->\n```python\n(.*?)```", page, re.DOTALL)
    assert example.count("\n") == 3
    names = {"l2jax": l2jax, "run_dir": run_dir}
    exec(compile(example, "run_folder.md", "exec"), names)
    logits = nnx.jit(names["network"])(digits.test_images / np.float32(255))
    accuracy = (logits.argmax(-1) == digits.test_labels).mean()
    assert names["arrays"]["conv1/kernel"].shape == (3, 3, 1, 32)
    results = names["results"]
    assert accuracy == pytest.approx(results.data["test_accuracy"].sel(results.best_trial()).item())


def test_metrics_lines_are_the_results(tiny_run):
    run_dir, _ = tiny_run
    data = l2jax.load_results(run_dir).data
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["trials"]) for line in lines] == [(1, [0, 1, 2, 3]), (2, [0, 1, 2, 3])]
    for line in lines:
        for name in (
            "train_loss",
            "train_accuracy",
            "penalty",
            "val_loss",
            "val_accuracy",
            "kernel_sum_of_squares",
            "running_objective",
        ):
            trials = data[name].sel(epoch=line["epoch"]).values.ravel()  # strength by strength, seed by seed
            np.testing.assert_allclose(line[name], trials, rtol=1e-6)


def test_outcome_is_printed_and_progress_apart_from_it(tiny_run):
    run_dir, finished = tiny_run
    results = l2jax.load_results(run_dir)
    words = " ".join(finished.stdout.split())
    assert " ".join(brief(results)) in words
    assert str(run_dir / "report.html") in words
    assert f"load_results({str(run_dir)!r})" in words
    rows = [line.split() for line in finished.stdout.splitlines()]
    for l2, row in results.settings_table().iterrows():
        (printed,) = [cells for cells in rows if cells[:1] == [f"{l2:g}"]]
        assert printed[1:7] == [
            f"{row.val_loss:.4f}",
            "±",
            f"{row.val_loss_se:.4f}",
            f"{row.train_loss:.4f}",
            f"{row.val_loss - row.train_loss:.4f}",
            f"{row.val_accuracy:.1%}",
        ]
        assert ("minimum" in printed or "both" in printed) == (l2 == results.best(rule="min"))
        assert ("one" in printed or "both" in printed) == (l2 == results.best(rule="1se"))
    assert [line.split(":")[0] for line in finished.stderr.splitlines()] == [
        "mnist_small",
        "4 trials at once",
        "epoch 1/2",
        "epoch 2/2",
    ]


def test_quiet_prints_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(saving, "plot", SimpleNamespace(drawings=lambda _: {}))  # to draw takes seconds
    monkeypatch.setattr(saving, "write_report", lambda *_: None)
    assert cli.main([*TINY, "--epochs", "1", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", run_dir.name)
    assert l2jax.load_results(run_dir).data.sizes["epoch"] == 1


def test_runs_of_the_same_second_do_not_collide():
    assert len({make_run_dir(None) for _ in range(5)}) == 5


@pytest.mark.slow  # within a process, it is in test_run.py
def test_ctrl_c_saves_what_is_complete(tmp_path):
    words = ["-m", "l2jax", *TINY, "--epochs", "100000", "--run-dir", "run"]
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as process:
        lines = tmp_path / "run" / "metrics.jsonl"
        for _ in range(600):
            if lines.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    done = len(lines.read_text().splitlines())
    assert 1 <= done < 100000
    assert l2jax.load_results(tmp_path / "run").data.sizes["epoch"] == done
    assert err.splitlines()[-1] == f"interrupted: saved the {done} of 100000 epochs that are complete"
    assert "Traceback" not in err
