"""Checkpoints of a training, to resume it: weights, optimiser and curve in one file, no pickle."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from indexer.encoder.optimizer import AdamW
from tracker.explained import Explained
from tracker.files import new_file


class CheckpointError(Explained, ValueError):
    """A checkpoint cannot be resumed; the message gives the reason and the remedy."""


def save_checkpoint(
    path: Path,
    of: str,
    curve: list[dict[str, Any]],
    model: nn.Module,
    optimizer: AdamW,
    best: dict[str, Tensor],
) -> None:
    """Write a checkpoint in place of the old one, whole.

    Args:
        path: the file.
        of: fingerprint of the training; `load_checkpoint` refuses another one.
        curve: the epochs so far.
        model: its weights now.
        optimizer: its moments now.
        best: the weights of the best epoch.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.state().items()}
    copied = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    with new_file(path) as temporary:
        save_file(copied, temporary, {"format": "1", "of": of, "curve": json.dumps(curve)})


def load_checkpoint(
    path: Path, of: str, model: nn.Module, optimizer: AdamW
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Load model and optimiser, and return the curve and the weights of the best epoch.

    Raises:
        CheckpointError: the file is no checkpoint, or one of another training.
    """
    remedy = f"remove {path} to start anew"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {error}; {remedy}") from error
    if about.get("format") != "1" or about.get("of") != of:
        raise CheckpointError(
            f"{path}: a checkpoint of another training: found {about.get('of', 'none')[:300]},"
            f" expected {of[:300]}; {remedy}"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    model.load_state_dict(parts["model"])
    optimizer.load(parts["optimizer"])
    device = next(model.parameters()).device
    best = {name: value.to(device) for name, value in parts["best"].items()}
    return json.loads(about["curve"]), best
