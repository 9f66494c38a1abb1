"""Wrong command lines and config files: they end with one line, and nothing is started or written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2jax import cli


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Commands start in a folder with a few files, and a run that would begin is only noted in this list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    runs = []
    monkeypatch.setattr("l2jax.run.session.run", lambda *words, **_: runs.append(words) or 0)
    return runs


NUMBERS = [
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "x",
    "",
    "0x10",
    "1,5",
    "½",
    "1_0_",
    "--",
    "None",
    "[]",
    "9" * 5000,
]
BAD = {
    "--l2": [
        "-1",
        "nan",
        "inf",
        "1e13",
        "x",
        "",
        "0 0",
        "log:",
        "log:1:2",
        "log:2:1:3",
        "log:1:2:1",
        "log:0:1:3",
        "log:1:2:x",
    ],
    "--learning-rate": ["0", "-1", "nan", "inf", "1e31", "x", "1 1", "log:1:1:2", "log:a:b:c"],
    "--weight-decay": ["-1", "nan", "inf", "1e13", "x", "0 0.0"],
    "--label-smoothing": ["-0.1", "1", "nan", "x", "0.1 1e-1"],
    "--label-noise": ["-0.1", "1.1", "nan", "x", "inf", ""],
    "--checkpoint-minutes": ["-1", "nan", "inf", "x", "", "1 2"],
    "--refine": ["-1", "21", "x", "1.5", "", "1 2"],
    "--seeds": [number for number in NUMBERS if number != "--"],
    "--epochs": NUMBERS,
    "--batch-size": NUMBERS,
    "--folds": [number for number in NUMBERS if number != "--"],
    "--train-size": NUMBERS,
    "--val-size": [*NUMBERS, "tests", "all"],
    "--devices": NUMBERS,
    "--trials-at-once": NUMBERS,
    "--recipe": ["", "cake", "quick cake"],
    "--resume": ["", ".", "nowhere", "file", "/dev/null", "a b", "\0", "x" * 5000],
    "--run-dir": ["", "a b", "file", "full", "/dev/null", "\0", "x" * 5000],
    "--profile": ["", "a b", "file", "full", "\0"],
    "--bfloat16": ["yes", "False"],
    "--autotune": ["1"],
    "--quiet": ["no"],
    "--unheard": ["", "1"],
    "": [
        "stray",
        "-x",
        "-5",
        "---",
        "--l",
        "--epoch=3",
        "--no-quiet",
        "é",
        "\0",
        "report nowhere",
        "$(touch harmed)",
    ],
}
LINES = [
    [*([option] if option else []), *words.split(" ")] if words else [option]
    for option, all_words in BAD.items()
    for words in all_words
]
LINES += [[f"{option}={all_words[0]}"] for option, all_words in BAD.items() if option]


def exit_code(words):
    try:
        return cli.main(words)
    except SystemExit as exit:  # of --help
        return exit.code or 0


def test_wrong_command_lines_end_with_one_line(runs, tmp_path, capsys):
    assert len({tuple(words) for words in LINES}) >= 200
    wrong = {}
    for words in LINES:
        try:
            code = exit_code(words)
        except Exception as error:
            code = repr(error)
        out, err = capsys.readouterr()
        one_line = not out and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 600
        if code != 2 or not one_line or runs:
            wrong[tuple(words)] = code, out, err
        runs.clear()
    assert wrong == {}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file", "full"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*cli.FLAGS.values(), "report", "--help", "--", *NUMBERS]),
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.floats().map(str),
            st.integers().map(str),
        ),
        max_size=6,
    )
)
def test_no_command_line_ends_with_a_traceback(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l2jax.run.session.run", lambda *_, **__: 0)
        assert exit_code(words) in (0, 1, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"sweep": 3}',
        b'{"sweep": {"l2": "x"}}',
        b'{"sweep": {"l2": [0], "unheard": 1}}',
        b'{"sweep": {"epochs": 1e400}}',
        b'{"sweep": {"epochs": NaN}}',
        b'{"sweep": {"l2": {"x": 1}}}',
        b'{"sweep": {"dataset": 5}}',
        b'{"sweep": {"l2": "log:1e-9:1:10000", "seeds": 1000}}',
        b"[" * 100_000,
        b'{"sweep": ' * 100_000,
        b"\xff\xfe\x00",
        b'{"sweep": {"__class__": "os.system"}}',
    ],
)
def test_config_files_of_something_else_are_refused(content, runs, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(content)
    assert cli.main(["--resume", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: --resume: got .*; accepted: a run folder with the config.json of a sweep \(.*\)", line)
