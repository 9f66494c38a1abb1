"""Sentences about a run: what was done, and how sure the results are."""

from __future__ import annotations

from l2jax.config import hyperparameter
from l2jax.results import words
from l2jax.results.metrics import REPLICATES
from l2jax.results.results import Results


def training(results: Results) -> str:
    """One sentence on what was trained, from the data and as far as the config says."""
    data, config = results.data, results.config.get("sweep", {})
    sizes = {str(name): size for name, size in data["diverged"].sizes.items()}
    nouns = {name: name if name in REPLICATES else hyperparameter(name).name for name in sizes}
    product = " x ".join(_count(size, nouns[name]) for name, size in sizes.items())
    networks, epochs = _count(data["diverged"].size, "network"), _count(data.sizes["epoch"], "epoch")
    text = f"{networks} ({product}), trained for {epochs}"
    if "dataset" in config:
        text += f" on {config['dataset']}"
    if size := config.get("train_size"):
        text += f", {f'{size:.0%} of the' if isinstance(size, float) else size} training examples each"
    if seconds := sum(results.config.get("seconds", {}).values()):
        number, device = results.config.get("num_devices", 1), str(results.config.get("device", "")).upper()
        text += f", in {seconds:.0f} s on {_count(number, f'{device} device')}"
    return text + "."


def other_hyperparameters(results: Results, along_l2: Results) -> str:
    """One sentence on the values at which other swept hyperparameters are held; "" if there are none."""
    values = {name: float(along_l2.data[name]) for name in results.swept if name != "l2"}
    return f"What follows is at the best of the other hyperparameters: {words.setting(values)}." if values else ""


def intervals(results: Results) -> str:
    """A paragraph on what the intervals mean and when a change is called clear."""
    kind, num_folds = "Student t intervals over seeds", results.data.sizes.get("fold")
    if num_folds:
        overlap = "corrected as their training parts overlap (Nadeau, Bengio 2003)"
        kind = f"t intervals over seeds and {num_folds} folds, {overlap}"
    return (
        f"How sure it is: intervals are 95% {kind}; where strengths are compared, of differences between trials of the "
        "same seed. A change is called clear where p < 0.05 after Holm's correction for the number of strengths, "
        "each metric by itself. They tell what other seeds would do on these data, not what other data would."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
