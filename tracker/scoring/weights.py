"""Weights: a model's arrays as a frozen dataclass, checked, written to a file and read from it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

W = TypeVar("W", bound="DataclassInstance")


def names_of(weights: "DataclassInstance | type[DataclassInstance]") -> tuple[str, ...]:
    """Return the names of the arrays, in the order in which they are declared."""
    return tuple(field.name for field in fields(weights))


def check_weights(
    model: str,
    weights: "DataclassInstance",
    shapes: Mapping[str, tuple[int, ...]],
    error: type[ValueError],
) -> None:
    """Refuse arrays of another shape or type, and numbers that are not finite.

    Args:
        model: name of the model, for the message.
        weights: the arrays.
        shapes: the shape of each; all are float32.
        error: type of the exception.

    Raises:
        ValueError: as `error`; the message names the array, what was found and what is expected.
    """
    for name, shape in shapes.items():
        array = getattr(weights, name)
        if array.shape != shape or array.dtype != np.float32:
            raise error(
                f"{model} weights {name!r}: {array.dtype} {array.shape} found,"
                f" float32 {shape} expected; train again"
            )
        if not np.isfinite(array).all():
            raise error(f"{model} weights {name!r}: not all are finite; train again")


def weights_to_bytes(weights: "DataclassInstance") -> bytes:
    """Return the arrays as safetensors."""
    return safetensors.numpy.save({name: getattr(weights, name) for name in names_of(weights)})


def read_weights(path: Path, weights: type[W], error: type[ValueError]) -> W:
    """Read the arrays that `weights_to_bytes` wrote; shapes are not checked yet.

    Args:
        path: a safetensors file.
        weights: the dataclass of the arrays.
        error: type of the exception.

    Raises:
        ValueError: as `error`; the file is not there, cut short, or has other arrays.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as cause:
        raise error(f"{path}: cannot be read: {cause}") from cause
    names = names_of(weights)
    if set(tensors) != set(names):
        raise error(f"{path}: tensors {sorted(tensors)} found, {sorted(names)} expected")
    # Copies can be written to, as those of a training: kernels take one type of array.
    copies: dict[str, Any] = {name: np.array(tensors[name], order="C") for name in names}
    return weights(**copies)
