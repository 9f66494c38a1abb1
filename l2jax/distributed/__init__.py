"""A sweep and an executor come in; chunks are trained in other processes, on any machine; records of epochs go out."""
