"""A tiny transformers model with random weights, made on the spot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_bert(path: Path, words: Sequence[str], dims: int, layers: int, tokens: int) -> Path:
    """Write a BERT that knows some words; the same arguments give the same weights.

    Args:
        path: its folder, which is made.
        words: the vocabulary, besides SPECIAL.
        dims: width of its vectors.
        layers: number of layers.
        tokens: length of the longest text.
    """
    import transformers  # a second, which only processes pay that need it

    path.mkdir()
    vocabulary = [*SPECIAL, *words]
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    bert: Any = transformers  # its lazy module tells type checkers nothing
    bert.BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dims,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * dims,
        max_position_embeddings=tokens,
    )
    bert.BertModel(config).save_pretrained(path)
    return path
