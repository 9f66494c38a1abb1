"""Images of one trial come in, logits go out: the CNN, and the operations that it is fast by."""
