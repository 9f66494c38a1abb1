"""What the README promises."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_tests_as_the_readme_does():
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert last.endswith("-m pytest")
    assert f"```sh\n{last}\n```" in README


@pytest.mark.usefixtures("compiled_quickly")
def test_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"<!-- tests/test_readme.py runs this -->\n```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    results = names["results"]
    assert results.data.sizes == {"l2": 4, "seed": 3, "epoch": 20, "layer": 2, "magnitude": 32}
    assert results.settings_table()["val_accuracy"].max() > 0.8
    assert f"lowest: {results.best()}" in capsys.readouterr().out
    assert (tmp_path / "validation_curve.png").stat().st_size > 10_000
