"""A command comes in; a run folder that survives any interruption goes out."""
