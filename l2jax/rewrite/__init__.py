"""A network's function comes in, the same function in operations that a device does fast goes out."""
