"""Training tasks of a text encoder: batches and their loss; here, items chosen together."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from indexer.finetune.data import Choices, Integers
from indexer.items.whitening import Whitening

_MASKED = -1e4


class TrainingTask(Protocol):
    """Batches of examples, and the loss of the encoder on them."""

    weights: list[nn.Parameter]
    """Weights that are trained together with the encoder."""

    def batches(self, random: np.random.Generator) -> Iterator[Integers]:
        """Yield batches of examples forever, as ascending positions."""
        ...

    def texts(self, places: Integers) -> Integers:
        """Return the distinct texts (U,) of a batch, ascending."""
        ...

    def loss(self, places: Integers, encodings: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar, from the encodings (U, W) of its texts."""
        ...


class Space(nn.Module):
    """The space in which vectors are compared: the whitening before the training, frozen.

    The tracker compares whitened vectors. A loss on raw encodings would learn what the whitening
    does anyway, and what it undoes.
    """

    def __init__(self, whitening: Whitening, device: str) -> None:
        super().__init__()
        self.mean = torch.from_numpy(whitening.mean).to(device)
        self.matrix = torch.from_numpy(whitening.matrix).to(device)

    def forward(self, encodings: Tensor) -> Tensor:
        """Whiten encodings (U, W) to unit vectors (U, F)."""
        centred = functional.normalize(encodings, dim=1) - self.mean
        return functional.normalize(centred @ self.matrix, dim=1)


class CoInterest:
    """Pulls items that one user chose near each other together, and the others of the batch away.

    A softmax over the texts of the batch, from either side of a pair. Other choices of the user in
    the batch are not negatives. A negative stands for 1 / q texts, where q is the probability that
    it came into the batch, so that frequent texts are not pushed away for being frequent (the logQ
    correction). The positive is always in the batch, and is not corrected.
    Source: Yi et al. 2019, "Sampling-bias-corrected neural modeling"; for the positive, Khrylchenko
    et al. 2025, "Correcting the LogQ correction".
    """

    def __init__(self, choices: Choices, space: Space, batch: int, temperature: float) -> None:
        self.weights: list[nn.Parameter] = []
        self._choices = choices
        self._space = space
        self._batch = batch
        self._temperature = temperature

    def batches(self, random: np.random.Generator) -> Iterator[Integers]:
        """Yield runs of choices."""
        return self._choices.batches(self._batch, random)

    def texts(self, places: Integers) -> Integers:
        """Return the distinct texts of a batch."""
        return np.unique(self._choices.texts[places])

    def loss(self, places: Integers, encodings: Tensor) -> Tensor:
        """Return the mean softmax cross-entropy of the pairs, by their weights."""
        device = encodings.device
        choices = self._choices
        first, second, weights = choices.pairs(places)
        texts, column = np.unique(choices.texts[places], return_inverse=True)
        users, user = np.unique(choices.users[places], return_inverse=True)
        own = np.zeros((len(users), len(texts)), np.bool_)
        own[user, column] = True
        share = np.clip(choices.frequency[texts], 1e-12, 1.0 - 1e-12)
        inclusion = -np.expm1(len(places) * np.log1p(-share))

        vectors = self._space(encodings)  # (U, F)
        logits = vectors @ vectors.T / self._temperature  # (U, U)
        corrected = logits - torch.from_numpy(np.log(inclusion)).to(device, torch.float32)
        columns = torch.from_numpy(column).to(device)  # (C,) of each choice
        negatives = corrected[columns].masked_fill(
            torch.from_numpy(own[user]).to(device), _MASKED
        )  # (C, U)
        others = torch.logsumexp(negatives, 1)  # (C,)
        one = torch.from_numpy(np.concatenate([first, second])).to(device)  # (2 P,)
        other = torch.from_numpy(np.concatenate([second, first])).to(device)
        positive = logits[columns[one], columns[other]]
        losses = torch.logaddexp(positive, others[one]) - positive
        weight = torch.from_numpy(np.concatenate([weights, weights])).to(device, torch.float32)
        mean: Tensor = (losses * weight).sum() / weight.sum().clamp(min=1e-9)  # of no pair: 0
        return mean
