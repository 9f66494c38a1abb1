"""One page that tells what was done, what came out, how sure it is, and how to repeat it.

It is a file of its own: styles, numbers and the script that draws (Plotly, gzipped, 2 MB of it) are inside, and its
content security policy forbids the browser any request. Browsers of 2023 and later unpack it.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from l2jax.atomic import write_whole
from l2jax.report import charts, marks, tables
from l2jax.report.reproduce import how_to_repeat
from l2jax.results.metrics import REPLICATES
from l2jax.results.results import Results
from l2jax.results.verdict import Finding, verdict

QUESTION = "Does L2 regularisation prevent overfitting here, and how strong should it be?"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


def write_report(runs: Mapping[str, Results], path: Path) -> None:
    """Writes the page about one run, or about several and how they compare.

    Args:
      runs: results by name, such as that of the run folder. Names, and all that results hold, may be any text.
      path: of the file, which appears whole or not at all.
    """
    write_whole(path, render(runs).encode())


def render(runs: Mapping[str, Results]) -> str:
    """The page as HTML; see `write_report`."""
    drawn: dict[str, dict[str, Any]] = {}
    body = [f"<h1>{QUESTION}</h1>"]
    if len(runs) > 1:
        body += _comparison(runs, drawn)
    for number, (name, results) in enumerate(runs.items()):
        body += _run(str(number), name, results, drawn)
    title = ", ".join(runs)
    assets = resources.files("l2jax.report") / "assets"
    style, script = ((assets / f"report.{kind}").read_text() for kind in ("css", "js"))
    numbers = json.dumps(drawn, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>L2 report: {html.escape(title)}</title>",
            f"<style>{style}</style>",
            *body,
            f'<script type="application/json" id="charts">{numbers}</script>',
            f'<script type="text/plain" id="plotly">{_plotly()}</script>',
            f"<script>{script}</script>",
            "</html>\n",
        ]
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _comparison(runs: Mapping[str, Results], drawn: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for name, results in runs.items():
        rows += [{"run": (name, name)} | row for row in tables.strengths(_along_l2(results)).values()]
    return [
        f"<h2>{len(runs)} runs compared</h2>",
        *(f"<p><strong>{html.escape(name)}</strong>: {_first_words(results)}</p>" for name, results in runs.items()),
        *_figures("all", charts.compared_runs({name: _along_l2(of) for name, of in runs.items()}), drawn),
        *tables.as_html(rows),
    ]


def _run(number: str, name: str, results: Results, drawn: dict[str, dict[str, Any]]) -> list[str]:
    along = _along_l2(results)
    strengths = sorted(along.data["l2"].values.tolist())
    colours = [colour.split("|") for colour in marks.strength_colours(strengths)]
    chips = [
        f'<label><input type="checkbox" value="{index}" checked><span class="swatch" '
        f'style="--light:{light};--dark:{dark}"></span>{l2:.3g}</label>'
        for index, (l2, (light, dark)) in enumerate(zip(strengths, colours, strict=True))
    ]
    best = (along.best_setting_or_none() or {}).get("l2")
    rows = tables.strengths(along)
    return [
        "<article>",
        f"<h2>{html.escape(name)}</h2>",
        f'<p class="what">{html.escape(_what_was_done(results))}</p>',
        *_setting(results, along),
        "<h3>Verdict</h3>",
        f'<div class="verdict">{_paragraphs(verdict(along))}</div>',
        f'<p class="note">{_on_intervals(along)}</p>',
        "<h3>Against strength</h3>",
        *_figures(number, [*charts.over_strengths(along), *charts.learning_rates(results)], drawn),
        "<h3>Over epochs, and at the end</h3>",
        f'<fieldset data-run="{number}"><legend>L2 strengths shown</legend>{"".join(chips)}'
        '<span><button type="button" value="all">all</button> <button type="button" value="none">none</button></span>'
        "</fieldset>",
        *_figures(number, [*charts.over_epochs(along), *charts.kernel_magnitudes(along)], drawn, switched=True),
        "<h3>Every strength</h3>",
        '<p class="note">At the last epoch: means and standard errors over the trials that did not diverge. A click '
        "on a heading sorts.</p>",
        *tables.as_html([*rows.values()], [l2 == best for l2 in rows]),
        "<h3>More than L2</h3>",
        f'<p class="note">{tables.ON_METHODS}</p>',
        *tables.as_html(tables.methods(results)),
        "<h3>How to repeat it</h3>",
        *how_to_repeat(results.config),
        "</article>",
    ]


def _along_l2(results: Results) -> Results:
    """At the best setting of other hyperparameters, where there are any."""
    swept = {*results.data["val_loss"].dims} - {"l2", "epoch", *REPLICATES}
    return results.along_l2() if swept else results


def _figures(
    run: str, pictures: Iterable[marks.Chart], drawn: dict[str, dict[str, Any]], switched: bool = False
) -> list[str]:
    """Places for pictures; what they show goes into `drawn`, by the id of its place."""
    lines = ['<div class="grid">']
    for title, reading, figure in pictures:
        name = f"chart-{len(drawn)}"
        drawn[name] = {"run": run, "switched": switched, "figure": figure}
        lines.append(
            f'<figure><h4>{html.escape(title)}</h4><div class="chart" id="{name}" role="img" '
            f'aria-label="{html.escape(title)}"></div><figcaption>{html.escape(reading)}</figcaption></figure>'
        )
    return [
        *lines,
        "</div>",
        "<noscript><p>The pictures take JavaScript; PNG files beside this page do not.</p></noscript>",
    ]


def _paragraphs(findings: Iterable[Finding]) -> str:
    """The verdict: its first sentence stands out, and so does the label of each finding."""
    lines = []
    for index, finding in enumerate(findings):
        label, lead, details = (html.escape(text, quote=False) for text in finding)
        label = f"<strong>{label}:</strong> " if label else ""
        if index == 0:
            lines.append(f'<p class="lead">{label}{lead}</p>' + (f"<p>{details}</p>" if details else ""))
        else:
            lines.append(f"<p>{label}{' '.join(filter(None, (lead, details)))}</p>")
    return "".join(lines)


def _first_words(results: Results) -> str:
    return html.escape(str(verdict(_along_l2(results))[0]))


def _on_intervals(results: Results) -> str:
    folds = results.data.sizes.get("fold")
    how = "Student t intervals over seeds"
    if folds:
        how = (
            f"t intervals over seeds and {folds} folds, corrected as their training parts overlap (Nadeau, Bengio 2003)"
        )
    return (
        f"How sure it is: intervals are 95% {how}; where strengths are compared, of differences between trials of the "
        "same seed. A change is called clear where p &lt; 0.05 after Holm's correction for the number of strengths, "
        "each metric by itself. They tell what other seeds would do on these data, not what other data would."
    )


def _what_was_done(results: Results) -> str:
    """In a sentence, from the data themselves, and from the config as far as it tells."""
    data, config = results.data, results.config.get("sweep", {})
    sizes = {str(name): size for name, size in data["diverged"].sizes.items()}
    names = {"l2": "L2 strength"}
    product = " x ".join(_count(size, names.get(name, name.replace("_", " "))) for name, size in sizes.items())
    networks, epochs = _count(data["diverged"].size, "network"), _count(data.sizes["epoch"], "epoch")
    text = f"{networks} ({product}), trained for {epochs}"
    if "dataset" in config:
        text += f" on {config['dataset']}"
    if config.get("train_size"):
        text += f", {config['train_size']} training examples each"
    if seconds := sum(results.config.get("seconds", {}).values()):
        number, device = results.config.get("num_devices", 1), str(results.config.get("device", "")).upper()
        text += f", in {seconds:.0f} s on {_count(number, f'{device} device')}"
    return text + "."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _setting(results: Results, along: Results) -> list[str]:
    """Where other hyperparameters were swept: at which of their values the rest of the page is."""
    swept = sorted({*map(str, results.data["val_loss"].dims)} - {*map(str, along.data["val_loss"].dims)})
    if not swept:
        return []
    values = ", ".join(f"{name.replace('_', ' ')} {float(along.data[name]):.3g}" for name in swept)
    return [f'<p class="what">What follows is at the best of the other hyperparameters: {html.escape(values)}.</p>']
