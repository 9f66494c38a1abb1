"""Images as arrays: the forms that they are accepted in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from l2jax.errors import InvalidInputError


def as_array(name: str, values: ArrayLike) -> np.ndarray:
    """A NumPy array of anything that makes one.

    Raises:
      InputError: for values that make no array, such as nested lists of different lengths, or of which some are masked.
    """
    if np.ma.isMaskedArray(values) and (masked := np.count_nonzero(np.ma.getmaskarray(values))):
        raise InvalidInputError("dataset", f"{name} with {masked:,} masked values", "arrays without a mask")
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        raise InvalidInputError("dataset", f"{name} that make no array", "arrays (images, labels)") from None


def read_images(name: str, images: ArrayLike) -> np.ndarray:
    """Checks images and returns them as uint8 or float32.

    `uint8` (N, H, W) become (N, H, W, 1). Arrays of any other rank stay as they are, and floats always do: what a
    network gets has the shape that was given.

    Args:
      name: "images" or "test images", for errors.
      images: (N, ...), uint8, or any float type of NumPy or JAX.

    Raises:
      InputError: for another type, a size of 0, a single axis, or NaN and infinite values.
    """
    images = as_array(name, images)
    # JAX's bfloat16 is no np.floating.
    if images.dtype != np.uint8 and "float" not in images.dtype.name:
        accepted = "images of uint8, which a network gets in [0, 1], or floats, which it gets as they are"
        raise InvalidInputError("dataset", f"{name} of {images.dtype}", accepted)
    if images.ndim < 2 or images.size == 0:
        accepted = "(N, H, W, C), (N, H, W) or another (N, ...), none of them 0"
        raise InvalidInputError("dataset", f"{name} of shape {images.shape}", accepted)
    if images.dtype == np.uint8:
        return images[..., None] if images.ndim == 3 else images
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused
        images = images.astype(np.float32, copy=False)
    finite = np.isfinite(images)
    if not finite.all():
        first = ", ".join(map(str, np.argwhere(~finite)[0]))
        given = f"{name} with {np.count_nonzero(~finite):,} NaN or infinite values"
        raise InvalidInputError("dataset", given, f"finite float32 values; the first other one is at [{first}]")
    return images
