"""A text encoder in training: its trained weights, gradients on all cores, its folder."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from indexer.items.item_encoder import EncoderError, TextModel
from tracker.explained import Explained
from tracker.files import sync_file, sync_folder

Method = Literal["lora", "top", "whole"]
METHODS: tuple[Method, ...] = get_args(Method)

CHUNK_TEXTS = 32
"""Number of texts encoded together: as many as fit the cache of one core."""

LORA_RANK = 16


class LoraMissingError(EncoderError):
    """LoRA needs peft, which is not installed."""


class FolderExistsError(Explained, ValueError):
    """The folder to write to exists."""


class Learner:
    """A text model of which some weights are trained.

    Gradients are computed chunk by chunk, each on one thread, and added in the order of the
    chunks, so that the same seed gives the same weights for any number of cores. Dropout is off:
    there are few epochs, and the validation decides when to stop.
    """

    def __init__(self, text: TextModel, method: Method, seed: int) -> None:
        """Choose the weights to train.

        Args:
            text: the model, in float32; it is changed.
            method: `lora` adds low-rank weights to each linear layer of the upper half of the
                layers, `top` trains the upper third itself, `whole` everything.
            seed: for the low-rank weights, which begin at random (and add nothing).

        Raises:
            LoraMissingError: peft is not installed.
            EncoderError: `lora` or `top`, and the model has no list of layers.
        """
        self.text = text
        self.method = method
        for weight in text.model.parameters():
            weight.requires_grad = method == "whole"
        if method == "lora":
            torch.manual_seed(seed)
            self.text = _with_lora(text)
        elif method == "top":
            layers = _layers(text)
            for layer in layers[-max(1, len(layers) // 3) :]:
                for weight in layer.parameters():
                    weight.requires_grad = True
        self.weights: list[nn.Parameter] = [
            weight for weight in self.text.model.parameters() if weight.requires_grad
        ]
        workers = len(os.sched_getaffinity(0)) if text.device == "cpu" else 1
        one_thread = None if text.device == "cuda" else partial(torch.set_num_threads, 1)
        self._pool = ThreadPoolExecutor(workers, "learn", one_thread)

    def vectors(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, list[tuple[Any, Tensor]]]:
        """Encode texts, given by their token ids, and keep the graphs for `backward`.

        Returns:
            vectors (U, W) float32, and the positions and the graph of each chunk.
        """
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        chunks = [order[start : start + CHUNK_TEXTS] for start in range(0, len(order), CHUNK_TEXTS)]
        parts = list(
            self._pool.map(lambda rows: self.text.vectors([tokens[i] for i in rows]), chunks)
        )
        together = torch.cat([part.detach() for part in parts])
        out = torch.empty_like(together)
        out[torch.from_numpy(order).to(out.device)] = together
        return out.requires_grad_(), list(zip(chunks, parts, strict=True))

    def backward(self, vectors: Tensor, graphs: list[tuple[Any, Tensor]]) -> None:
        """Add the gradients of the weights, from the gradient of `vectors`."""
        assert vectors.grad is not None
        gradient = vectors.grad

        def of_chunk(chunk: tuple[Any, Tensor]) -> tuple[Tensor, ...]:
            rows, part = chunk
            own = gradient[torch.from_numpy(rows).to(gradient.device)]
            return torch.autograd.grad(part, self.weights, own, allow_unused=True)

        for gradients in self._pool.map(of_chunk, graphs):
            for weight, part in zip(self.weights, gradients, strict=True):
                if part is not None:
                    weight.grad = part if weight.grad is None else weight.grad.add_(part)

    def save(self, folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> None:
        """Write the model and its tokenizer as transformers reads them, and more files.

        1. Write everything into a temporary folder.
        2. Sync it to disk.
        3. Rename it to `folder`; with `force` the old one stays until then.

        The weights of LoRA are added to those of the model; the learner cannot be used afterwards.

        Args:
            folder: the new folder.
            files: content of more files, by name.
            force: replace a folder that exists.

        Raises:
            FolderExistsError: the folder exists, and not `force`.
            OSError: it cannot be written, for instance because the disk is full.
        """
        refuse_existing(folder, force)
        model = self.text.model
        if self.method == "lora":
            model = model.merge_and_unload()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            # 1. Write everything into a temporary folder.
            new = Path(temporary) / "new"
            model.save_pretrained(new)
            self.text.tokenizer.save_pretrained(new)
            for name, content in files.items():
                (new / name).write_bytes(content)
            # 2. Sync it to disk.
            for path in new.rglob("*"):
                if path.is_file():
                    sync_file(path)
            sync_folder(new)
            # 3. Rename it.
            old = Path(temporary) / "old"
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
        sync_folder(folder.parent)


def refuse_existing(folder: Path, force: bool) -> None:
    """Check that nothing is lost by writing a folder.

    Raises:
        FolderExistsError: the folder exists, and not `force`.
    """
    if folder.exists() and not force:
        raise FolderExistsError(
            f"{folder} exists already; name another with --to, or replace it with --force"
        )


def _layers(text: TextModel) -> list[nn.Module]:
    """Return the layers of the model: its longest list of modules, as in all of transformers."""
    lists = [list(part) for part in text.model.modules() if isinstance(part, nn.ModuleList)]
    longest = max(lists, key=len, default=[])
    if not longest:
        raise EncoderError(
            f"{text.info.name}: no list of layers found in the model; train it with --method whole"
        )
    return longest


def _with_lora(text: TextModel) -> TextModel:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise LoraMissingError(
            "LoRA needs the package peft: install the extra `train`, or choose --method top"
        ) from error
    layers = _layers(text)
    upper = {id(layer) for layer in layers[len(layers) // 2 :]}
    names = []
    for path, module in text.model.named_modules():
        if id(module) in upper:
            names += [
                f"{path}.{inner}"
                for inner, part in module.named_modules()
                if isinstance(part, nn.Linear)
            ]
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=names)
    return TextModel(
        text.info, text.tokenizer, peft.get_peft_model(text.model, config), text.device,
        text.autocast,
    )  # fmt: skip
