"""README and docs: the commands and examples run, and links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks" / "README.md"]
OWN = (ROOT / "docs" / "your_own.md").read_text()
EXAMPLES = re.findall(r"<!-- tests/test_readme.py runs this -->\n```python\n(.*?)```", README + OWN, re.DOTALL)


def run_example(example):
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    return names["results"]


def test_ci_runs_the_tests_as_the_readme_does():
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert last.endswith("-m pytest")
    assert f"```sh\n{last}\n```" in README


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.filterwarnings("ignore:the .* part has")  # of so few examples
def test_first_example_prints_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call = 'seeds=5, dataset="mnist_small")'
    assert EXAMPLES[0].count(call) == 1
    less = call.replace("5", "2").replace(")", ", epochs=1, train_size=32, val_size=10)")
    results = run_example(EXAMPLES[0].replace(call, less))
    assert results.data.sizes["seed"] == 2
    assert f"lowest: {results.best()}" in capsys.readouterr().out
    assert (tmp_path / "validation_curve.png").stat().st_size > 10_000


@pytest.mark.usefixtures("compiled_quickly")
def test_example_of_a_network_and_data_learns():
    results = run_example(EXAMPLES[1])
    assert results.data.sizes == {"l2": 4, "seed": 3, "epoch": 20, "layer": 2, "magnitude": 32}
    assert results.settings_table()["val_accuracy"].max() > 0.8


@pytest.mark.usefixtures("compiled_quickly")
def test_example_of_hyperparameters_is_a_sweep():
    results = run_example(EXAMPLES[2].replace("seeds=2", "seeds=1, epochs=2"))
    assert results.data["val_loss"].sizes == {"l2": 3, "dropout": 3, "momentum": 2, "seed": 1, "epoch": 2}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if not path.startswith("http"):
            linked = page.parent / path if path else page
            assert linked.is_file(), target
            if heading:
                headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
                assert heading in [re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-") for text in headings]
