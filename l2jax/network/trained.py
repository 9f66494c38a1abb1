"""A trained network as a Flax module, from the arrays that were kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2jax.errors import InvalidInputError
from l2jax.network.cnn import default_model
from l2jax.network.model import ModelFn, make_network
from l2jax.network.network import abstract_init, by_path, path_name


def trained_network(
    model: ModelFn | None,
    arrays: Mapping[str, np.ndarray],
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    hyperparameters: Mapping[str, tuple[float, ...]],
) -> Any:
    """The Flax module with trained arrays, as `Results.network` gives it.

    Args:
      model: the network that was trained; None is the built-in one, which computes in float32, after bfloat16=True too.
      arrays: parameters and state by path.
      image_shape: of one image.
      num_classes: of the logits.
      hyperparameters: the values of every hyperparameter of the sweep.

    Raises:
      InputError: if the arrays are those of another network.
    """
    model = model if model is not None else default_model(image_shape, num_classes)
    network = make_network(model, image_shape, hyperparameters)
    params, state = abstract_init(network.init, network.arguments)
    expected = {path: leaf.shape for path, leaf in (by_path(params) | by_path(state)).items()}
    shapes = {path: values.shape for path, values in arrays.items()}
    if different := sorted(expected.items() ^ shapes.items()):
        path = different[0][0]
        given = f"{network.name} with {path} {expected.get(path, 'missing')}"
        raise InvalidInputError(
            "model", given, f"the network that was trained, with {path} {shapes.get(path, 'missing')}"
        )

    def trained(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(arrays[path_name(path)], leaf.dtype)

    return network.module(*(jax.tree.map_with_path(trained, tree) for tree in (params, state)))
