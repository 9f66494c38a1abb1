"""Images come in, logits go out, for one trial: the built-in CNN, and networks that people bring."""
