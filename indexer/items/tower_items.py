"""The items of an artifact in a user encoder's space: their vectors, their index, as a Tower."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.items.index import build_index, queries_like
from tracker.encoder.scene_attention import SceneAttention
from tracker.encoder.steps import with_bias
from tracker.encoder.tower import Tower, code_of, padded
from tracker.encoder.tower_info import TowerInfo, UserAttributes
from tracker.encoder.user_encoder import UserEncoder, id_rows
from tracker.items.index import ItemIndex
from tracker.items.vectors import ItemVectors, unit

_BATCH = 4096


@dataclass(frozen=True, slots=True)
class FittedTower:
    """What a training gives.

    The encoder, the hashes (I,) of the items with a vector of their own in the order of its rows,
    scene attention if there are scenes, users' attributes, and the figures of the training.
    """

    model: UserEncoder
    id_hashes: NDArray[np.uint64]
    attention: SceneAttention | None
    attributes: UserAttributes
    fitted: dict[str, float]


def make_tower(
    fitted: FittedTower,
    items: ItemVectors,
    min_recall: float = 0.95,
    device: torch.device | None = None,
) -> Tower:
    """Bring a catalogue into an encoder's space, and index its live items.

    An item that the encoder has not met has the part that its text gives, and the mean bias.
    The index is tuned with mixtures of items' vectors at the length of a user's vector; where it
    finds too little that way, it is exact.

    Args:
        fitted: what a training gave.
        items: of the artifact, in the basis of the training.
        min_recall: the least recall@10 of the index.
        device: where the tower runs.

    Raises:
        ValueError: the items' full width is not what the encoder projects.
    """
    model = fitted.model.eval()
    if items.full_dim != model.config.text_dim:
        raise ValueError(
            f"items of full width {items.full_dim}, an encoder of text width"
            f" {model.config.text_dim}; equal expected"
        )
    vectors = padded(_item_vectors(model, fitted.id_hashes, items))
    live = vectors[: items.live]

    def queries(count: int, random: np.random.Generator) -> NDArray[np.float32]:
        found = np.zeros((count, vectors.shape[1]), np.float32)
        mixed = queries_like(unit(live[:, : model.dim]), count, random)
        found[:, : model.dim] = mixed * np.float32(np.sqrt(model.dim))
        found[:, model.dim] = 1.0
        return found

    index, info = build_index(live, min_recall, queries=queries)
    kind, recall = info.kind, info.recall_at_10
    if recall < min_recall:
        index, kind, recall = ItemIndex.flat(live), "flat", 1.0
    about = TowerInfo(
        code=code_of(model),
        cell=model.config.cell,
        dim=model.dim,
        width=model.state_dim,
        items=len(fitted.id_hashes),
        users=len(fitted.attributes.hashes),
        scenes=fitted.attention is not None,
        index_kind=kind,
        recall_at_10=recall,
        fitted=fitted.fitted,
    )
    return Tower(
        model, fitted.id_hashes, vectors, index, fitted.attention, fitted.attributes, about, device
    )


def moved_tower(
    tower: Tower,
    items: ItemVectors,
    min_recall: float = 0.95,
    attributes: UserAttributes | None = None,
) -> Tower:
    """Return a tower with the items of another catalogue in the same basis; the encoder stays.

    Users' attributes stay too, where no others are given.
    """
    known = tower.attributes if attributes is None else attributes
    fitted = FittedTower(tower.model, tower.id_hashes, tower.attention, known, tower.info.fitted)
    return make_tower(fitted, items, min_recall, tower.steps.device)


@torch.inference_mode()
def _item_vectors(
    model: UserEncoder, id_hashes: NDArray[np.uint64], items: ItemVectors
) -> NDArray[np.float32]:
    ids = id_rows(items.hashes, id_hashes)
    found = np.empty((len(items), model.dim + 1), np.float32)
    device = model.id_vectors.device
    for start in range(0, len(items), _BATCH):
        part = slice(start, start + _BATCH)
        texts = torch.from_numpy(np.ascontiguousarray(items.full[part])).to(device)
        rows = torch.from_numpy(ids[part]).to(device)
        found[part] = with_bias(*model.item_table(model.project(texts), rows))
    return found
