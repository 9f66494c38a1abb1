"""Checkpoints: from one folder of arrays to all of a run's, on this machine or where other machines see them."""
