"""Images come in, logits go out, for one trial: the built-in CNN and the operations that make it fast."""
