"""Items in the space of a user encoder: their vectors and index, as a Tower."""

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
    """Result of the training of a user encoder.

    Attributes:
        model: the encoder.
        id_hashes: (I,) uint64, hashes of the items with a vector of their own, in row order.
        attention: scene attention, None without scenes.
        attributes: attribute rows of users.
        fitted: figures of the training, by name.
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
    """Return a tower: the vectors of a catalogue in the space of an encoder, and their index.

    A new item has the part of its vector that comes from its text, and the mean bias. The index is
    tuned with mixtures of item vectors at the length of a user's vector; if its recall is too low,
    search is exact.

    Args:
        fitted: the result of a training.
        items: the items of the artifact, in the basis of the training.
        min_recall: minimum recall@10 of the index.
        device: device of the encoder.

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
        batch = np.zeros((count, vectors.shape[1]), np.float32)
        mixed = queries_like(unit(live[:, : model.dim]), count, random)
        batch[:, : model.dim] = mixed * np.float32(np.sqrt(model.dim))
        batch[:, model.dim] = 1.0
        return batch

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
    """Return a tower with the same encoder and the items of another catalogue in the same basis.

    Args:
        tower: the tower.
        items: the items of the new artifact.
        min_recall: minimum recall@10 of the index.
        attributes: attribute rows of users, None to keep those of the tower.
    """
    users = tower.attributes if attributes is None else attributes
    fitted = FittedTower(tower.model, tower.id_hashes, tower.attention, users, tower.info.fitted)
    return make_tower(fitted, items, min_recall, tower.steps.device)


@torch.inference_mode()
def _item_vectors(
    model: UserEncoder, id_hashes: NDArray[np.uint64], items: ItemVectors
) -> NDArray[np.float32]:
    ids = id_rows(items.hashes, id_hashes)
    vectors = np.empty((len(items), model.dim + 1), np.float32)
    device = model.id_vectors.device
    for start in range(0, len(items), _BATCH):
        part = slice(start, start + _BATCH)
        texts = torch.from_numpy(np.ascontiguousarray(items.full[part])).to(device)
        rows = torch.from_numpy(ids[part]).to(device)
        vectors[part] = with_bias(*model.item_table(model.project(texts), rows))
    return vectors
