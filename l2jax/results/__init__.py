"""Results: the metrics of all trials come in; labelled arrays, statistics, sentences and files go out. No JAX.

From the bottom to the top: `metrics`, `words`, `estimates`, `replicates` and `files` know no `Results`; `results` has
the class; `comparisons`, `refine` and `verdict` ask it questions.
"""
