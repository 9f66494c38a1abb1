"""`python -m l2jax.prepare` and `l2jax.prepare.prepare`: prepare data sets of tensorflow-datasets."""

import sys

from l2jax.data.tfds_prepare import main, prepare

__all__ = ("main", "prepare")

if __name__ == "__main__":
    sys.exit(main())
