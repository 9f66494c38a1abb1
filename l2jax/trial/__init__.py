"""Parameters, examples and the scalars of ONE trial come in; a step, an epoch, an evaluation go out."""
