"""A Tower in files: encoder, item vectors and their index, scene attention, users' attributes."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tracker.artifact.manifest import LAYOUT
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig
from tracker.encoder.tower import Tower, code_of
from tracker.encoder.tower_info import TowerInfo, UserAttributes
from tracker.encoder.user_encoder import EncoderFileError, load_encoder, save_encoder
from tracker.items.index import IndexFileError, ItemIndex
from tracker.kernels.device import Device, torch_device


class TowerFileError(ValueError):
    """A tower's files do not fit its description; the message says what was found."""


def write_tower(folder: Path, tower: Tower) -> None:
    """Write a tower into a directory.

    Raises:
        OSError: a file cannot be written.
    """
    save_encoder(tower.model, tower.id_hashes, folder / LAYOUT.user_encoder)
    save_file({"vectors": torch.from_numpy(tower.vectors)}, folder / LAYOUT.encoder_items)
    tower.index.save(folder / LAYOUT.encoder_index)
    if tower.attention is not None:
        config = msgspec.json.encode(tower.attention.config).decode()
        weights = {
            name: value.detach().cpu().contiguous()
            for name, value in tower.attention.state_dict().items()
        }
        save_file(weights, folder / LAYOUT.scene_attention, {"config": config})
    if len(tower.attributes.hashes):
        safetensors.numpy.save_file(
            {"hashes": tower.attributes.hashes, "rows": tower.attributes.rows},
            folder / LAYOUT.user_attributes,
        )


def files_of(info: TowerInfo) -> list[str]:
    """Return the names of the files that a tower has."""
    names = [LAYOUT.user_encoder, LAYOUT.encoder_items, LAYOUT.encoder_index]
    names += [LAYOUT.scene_attention] if info.scenes else []
    return names + ([LAYOUT.user_attributes] if info.users else [])


def read_tower(
    folder: Path, info: TowerInfo, items: int, live: int, interest_dim: int, device: Device
) -> Tower:
    """Read what `write_tower` wrote.

    Args:
        folder: folder of the files.
        info: of the manifest.
        items: N, rows of the artifact.
        live: how many of them can be recommended.
        interest_dim: width of the users' sums and interests.
        device: device of the encoder; `auto` is the GPU if there is one.

    Raises:
        TowerFileError: a file is not what the manifest says.
        DeviceError: device `cuda` without a GPU.
    """
    try:
        model, id_hashes = load_encoder(folder / LAYOUT.user_encoder)
        vectors = _tensor(folder / LAYOUT.encoder_items, "vectors", np.float32, (items, -1))
        index = ItemIndex.load(folder / LAYOUT.encoder_index)
    except (EncoderFileError, IndexFileError) as error:
        raise TowerFileError(str(error)) from error
    sizes = (code_of(model), model.state_dim, vectors.shape[1], index.dim, index.size)
    width = -(-(model.dim + 1) // 4) * 4
    expected = (info.code, info.width, width, width, live)
    if sizes != expected:
        raise TowerFileError(
            f"{folder}: code and width of the user encoder, columns of its items, dim and size of"
            f" its index are {sizes}; {expected} expected by the manifest"
        )
    attention = (
        _read_attention(folder / LAYOUT.scene_attention, interest_dim) if info.scenes else None
    )
    attributes = UserAttributes.none()
    if info.users:
        path = folder / LAYOUT.user_attributes
        hashes = _tensor(path, "hashes", np.uint64, (info.users,))
        attributes = UserAttributes(hashes, _tensor(path, "rows", np.int32, (info.users, -1)))
        most = len(model.config.attributes)
        if attributes.rows.size and not 0 <= attributes.rows.min() <= attributes.rows.max() <= most:
            raise TowerFileError(f"{path}: rows of attributes beyond the {most} of the encoder")
    place = torch_device(device)
    return Tower(model, id_hashes, vectors, index, attention, attributes, info, place)


def _read_attention(path: Path, interest_dim: int) -> SceneAttention:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = msgspec.json.decode(metadata.get("config", ""), type=SceneAttentionConfig)
        attention = SceneAttention(config)
        attention.load_state_dict(weights)
    except (OSError, SafetensorError, msgspec.MsgspecError, RuntimeError) as error:
        raise TowerFileError(f"{path}: not a scene attention: {error}") from error
    if bad := [name for name, value in weights.items() if not torch.isfinite(value).all()]:
        raise TowerFileError(f"{path}: weights {bad[0]!r}: not all are finite; train again")
    if config.interest_dim != interest_dim:
        raise TowerFileError(
            f"{path}: attends to interests of dim {config.interest_dim}; {interest_dim} expected"
        )
    return attention.eval()


def _tensor(path: Path, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        tensor = safetensors.numpy.load_file(path)[name]
    except (OSError, SafetensorError, KeyError) as error:
        raise TowerFileError(f"{path}: cannot be read: {error}") from error
    fits = tensor.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise TowerFileError(
            f"{path}: {name} is {tensor.dtype} {tensor.shape}; {np.dtype(dtype)} {shape} expected"
        )
    if np.issubdtype(dtype, np.floating) and not np.isfinite(tensor).all():
        raise TowerFileError(f"{path}: {name}: not all are finite; train again")
    return tensor
