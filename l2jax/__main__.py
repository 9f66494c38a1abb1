"""`python -m l2jax`: the command."""

import sys

from l2jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
