"""The command, for a clone: `python run_sweep.py`; with --help it lists its options."""

import sys

from l2jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
