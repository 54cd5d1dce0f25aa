"""Export of item vectors as Parquet, and of the user encoder's step for other runtimes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracker.artifact.artifact import Artifact
from tracker.explained import Explained
from tracker.files import new_file, vector_lists


class ExportError(Explained, ValueError):
    """The artifact has nothing to export; the message gives the reason and the remedy."""


def export_items(artifact: Artifact, path: Path) -> int:
    """Write the vectors of the live items; return their number.

    Columns: `item_id`, `label`, `content` (whitened text, full width, unit length), `vector` (its
    leading part, which the index holds), `encoder` (in the space of the user encoder: the inner
    product with a user's vector, plus `bias`, is the score) and `bias`. The last two are null if no
    user encoder was trained.

    Raises:
        OSError: the file cannot be written.
    """
    items, tower = artifact.vectors, artifact.models.tower
    live = items.live
    columns: dict[str, Any] = {
        "item_id": items.ids[:live],
        "label": [items.label(row) for row in range(live)],
        "content": vector_lists(items.full[:live]),
        "vector": vector_lists(items.vectors[:live]),
        "encoder": pa.nulls(live, pa.list_(pa.float32())),
        "bias": pa.nulls(live, pa.float32()),
    }
    if tower is not None:
        dim = tower.info.dim
        columns["encoder"] = vector_lists(tower.vectors[:live, :dim])
        columns["bias"] = pa.array(tower.vectors[:live, dim])
    with new_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
    return live


def export_step(artifact: Artifact, path: Path) -> int:
    """Write the user encoder's step as a torch.export program (`.pt2`); return the state's width.

    The program takes (state, items, kinds, scenes, values, gaps) of any number of users, see
    `StepInputs`, and returns the new states.

    Raises:
        ExportError: no user encoder was trained.
        OSError: the file cannot be written.
    """
    import torch

    from tracker.encoder.steps import export_step as exported

    tower = artifact.models.tower
    if tower is None:
        raise ExportError(artifact.manifest.without("tower"))
    with new_file(path) as temporary, temporary.open("wb") as file:
        torch.export.save(exported(tower.model), file)
    return tower.info.width
