"""matplotlib, whatever backend a person's MPLBACKEND names: figures here are files, and drawn without one."""

from __future__ import annotations

import os
import sys

try:
    import matplotlib as matplotlib
except ValueError:  # of a backend that is not installed, such as the one that a notebook hands to commands
    chosen = os.environ.pop("MPLBACKEND", None)
    if chosen is None:
        raise
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[loaded]
    import matplotlib as matplotlib

    os.environ["MPLBACKEND"] = chosen
