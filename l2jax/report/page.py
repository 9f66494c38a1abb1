"""One page about runs: their settings, outcome and uncertainty, and the command that reproduces them.

The file contains everything: styles, numbers and the script that draws (Plotly, gzipped, 2 MB of it). Its content
security policy forbids the browser any request. Browsers of 2023 and later unpack it.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from l2jax.atomic import write_whole
from l2jax.report import description, tables
from l2jax.report.charts import compared_runs, heat_maps, over_strengths
from l2jax.report.curves import colours_of, kernel_magnitudes, lines_of, over_epochs
from l2jax.report.reproduce import how_to_reproduce
from l2jax.report.traces import Chart
from l2jax.results.results import Results
from l2jax.results.spread import Group
from l2jax.results.verdict import Finding, verdict

QUESTION = "Does L2 regularisation prevent overfitting here, and how strong should it be?"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


class Section(NamedTuple):
    """A section of the page.

    Attributes:
      lines: of HTML.
      charts: for the page's script, by the id of the element to draw in: Plotly's figure, the run that it belongs to,
        and whether the switches of this run's strengths act on it.
    """

    lines: list[str]
    charts: dict[str, dict[str, Any]]


def write_report(runs: Mapping[str, Results], path: Path) -> None:
    """Writes the page about one run, or about several and how they compare.

    Args:
      runs: results by name, such as that of the run folder. Names, and all that results hold, may be any text.
      path: of the file, which appears whole or not at all.
    """
    write_whole(path, render(runs).encode(errors="backslashreplace"))  # a file's name may be no Unicode


def render(runs: Mapping[str, Results]) -> str:
    """The page as HTML; see `write_report`."""
    sections = [_comparison(runs)] if len(runs) > 1 else []
    sections += [_run(str(index), name, results) for index, (name, results) in enumerate(runs.items())]
    charts = {element: chart for section in sections for element, chart in section.charts.items()}
    title = html.escape(", ".join(runs))
    assets = resources.files("l2jax.report") / "assets"
    style, script = ((assets / f"report.{kind}").read_text() for kind in ("css", "js"))
    numbers = json.dumps(charts, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>L2 report: {title}</title>",
            f"<style>{style}</style>",
            f"<h1>{QUESTION}</h1>",
            *(line for section in sections for line in section.lines),
            f'<script type="application/json" id="charts">{numbers}</script>',
            f'<script type="text/plain" id="plotly">{_plotly()}</script>',
            f"<script>{script}</script>",
            "</html>\n",
        ]
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # takes a while to import: not needed before a page is written

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _comparison(runs: Mapping[str, Results]) -> Section:
    along_l2 = {name: results.along_l2() for name, results in runs.items()}
    rows = [
        {"run": tables.Cell(name, name)} | row
        for name, results in along_l2.items()
        for row in tables.strengths(results).values()
    ]
    grid = _grid("all", compared_runs(along_l2))
    lines = [
        f"<h2>{len(runs)} runs compared</h2>",
        *(f"<p><strong>{_text(name)}</strong>: {_text(_answer(results))}</p>" for name, results in along_l2.items()),
        *grid.lines,
        *tables.as_html(rows),
    ]
    return Section(lines, grid.charts)


def _run(run: str, name: str, results: Results) -> Section:
    along_l2 = results.along_l2()
    at_end = _grid(run, [*over_strengths(along_l2), *heat_maps(results)])
    epochs = _grid(run, [*over_epochs(along_l2), *kernel_magnitudes(along_l2)], switched=True)
    others = description.other_hyperparameters(results, along_l2)
    lines = [
        "<article>",
        f"<h2>{_text(name)}</h2>",
        f'<p class="what">{_text(description.training(results))}</p>',
        *([f'<p class="what">{_text(others)}</p>'] if others else []),
        *(f'<p class="what">Warning: {_text(line)}.</p>' for line in results.config.get("warnings", [])),
        "<h3>Verdict</h3>",
        f'<div class="verdict">{"".join(map(_paragraphs, verdict(along_l2)))}</div>',
        f'<p class="note">{_text(description.intervals(along_l2))}</p>',
        "<h3>Against strength</h3>",
        *at_end.lines,
        "<h3>Over epochs, and at the end</h3>",
        _switches(run, lines_of(along_l2)),
        *epochs.lines,
        *_strength_table(along_l2),
        "<h3>More than L2</h3>",
        f'<p class="note">{tables.ON_METHODS}</p>',
        *tables.as_html(tables.methods(results)),
        "<h3>How to reproduce it</h3>",
        *how_to_reproduce(results.config),
        "</article>",
    ]
    return Section(lines, at_end.charts | epochs.charts)


def _grid(run: str, charts: Iterable[Chart], *, switched: bool = False) -> Section:
    """A grid of charts, which the switches of the run's strengths may act on."""
    lines, by_element = ['<div class="grid">'], {}
    for index, (title, reading, figure) in enumerate(charts):
        element = f"chart-{run}-{'switched' if switched else 'fixed'}-{index}"
        by_element[element] = {"run": run, "switched": switched, "figure": figure}
        lines.append(
            f'<figure><h4>{_text(title)}</h4><div class="chart" id="{element}" role="img" '
            f'aria-label="{html.escape(title)}"></div><figcaption>{_text(reading)}</figcaption></figure>'
        )
    lines += [
        "</div>",
        "<noscript><p>The charts need JavaScript; the PNG files beside this page do not.</p></noscript>",
    ]
    return Section(lines, by_element)


def _answer(results: Results) -> str:
    """The verdict up to the answer, which has no label: only a warning may come before it."""
    findings = verdict(results)
    answer = next(index for index, finding in enumerate(findings) if not finding.label)
    return " ".join(map(str, findings[: answer + 1]))


def _paragraphs(finding: Finding) -> str:
    """A finding: the answer, which has no label, stands out; of the others, the label does."""
    if finding.label:
        text = f"{finding.lead} {finding.details}".rstrip()
        return f"<p><strong>{_text(finding.label)}:</strong> {_text(text)}</p>"
    details = f"<p>{_text(finding.details)}</p>" if finding.details else ""
    return f'<p class="lead">{_text(finding.lead.removesuffix("."))}</p>{details}'


def _switches(run: str, groups: Sequence[Group]) -> str:
    """Boxes that switch strengths, or groups of them, on and off in the charts below."""
    colours = (colour.split("|") for colour in colours_of(groups))
    boxes = "".join(
        f'<label><input type="checkbox" value="{index}" checked><span class="swatch" '
        f'style="--light:{light};--dark:{dark}"></span>{group}</label>'
        for index, (group, (light, dark)) in enumerate(zip(groups, colours, strict=True))
    )
    return (
        f'<fieldset data-run="{run}"><legend>L2 strengths shown</legend>{boxes}'
        '<span><button type="button" value="all">all</button> <button type="button" value="none">none</button></span>'
        "</fieldset>"
    )


def _strength_table(along_l2: Results) -> list[str]:
    """The table of strengths, in which the best one stands out: of all, or of very many those of the lowest means."""
    setting, num_strengths = along_l2.best_setting_or_none(), along_l2.data.sizes["l2"]
    rows, title, left_out = tables.strengths(along_l2), "Every strength", ""
    if len(rows) < num_strengths:
        title = f"The best of {num_strengths:,} strengths"
        left_out = f" These are the weakest strength and the {len(rows) - 1} of the lowest mean validation loss; "
        left_out += f"{num_strengths - len(rows):,} more are left out here: results.settings_table() has them all."
    note = (
        "At the last epoch: means and standard errors over the trials that did not diverge. A click on a heading sorts."
    )
    chosen = [setting is not None and l2 == setting["l2"] for l2 in rows]
    return [f"<h3>{title}</h3>", f'<p class="note">{note}{left_out}</p>', *tables.as_html([*rows.values()], chosen)]


def _text(text: str) -> str:
    """Text between tags."""
    return html.escape(text, quote=False)
