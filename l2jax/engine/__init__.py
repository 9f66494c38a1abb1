"""A config and a data set come in; every trial is trained on all devices; results and snapshots go out."""
