"""Files of arrays: a dataclass whose fields are arrays, as one .npz."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tracker.files import new_file

Arrays = TypeVar("Arrays")


def save_arrays(arrays: Any, path: Path) -> None:
    """Write the fields of a dataclass of arrays to a file, which is whole if it is there."""
    columns = {name: getattr(arrays, name) for name in arrays.__dataclass_fields__}
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns)


def load_arrays(kind: type[Arrays], path: Path) -> Arrays:
    """Read a dataclass of arrays that `save_arrays` wrote."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    with np.load(path) as file:
        return kind(**{name: file[name] for name in names})
