"""The ranker's network as it is trained, and several of them as the one that serves."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tracker.scoring.network import Weights


class Net(nn.Module):
    """The network of `tracker.scoring.network` over standardised columns, for training.

    Args:
        columns: P, of the features.
        hidden: the widths.
        shift, scale: (P,) float32; (x - shift) / scale is standardised.
    """

    def __init__(self, columns: int, hidden: tuple[int, int], shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(columns, hidden[0])
        self.second = nn.Linear(*hidden)
        self.last = nn.Linear(hidden[1], 1, bias=False)
        self.skip = nn.Linear(columns, 1, bias=False)
        nn.init.zeros_(self.skip.weight)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor) -> Tensor:
        """Return scores (B, C) of features (B, C, P) float32."""
        return self.of_standardised(
            (features - self.get_buffer("shift")) / self.get_buffer("scale")
        )

    def of_standardised(self, x: Tensor) -> Tensor:
        """Return scores (B, C) of standardised features (B, C, P)."""
        hidden = torch.relu(self.second(torch.relu(self.first(x))))  # (B, C, G)
        scores: Tensor = (self.last(hidden) + self.skip(x)).squeeze(-1)  # (B, C)
        return scores

    @torch.no_grad()
    def mix(self, linear: Tensor, parts: tuple[float, float]) -> None:
        """Make the score a sum of its own, times the first part, and of a linear one, the second.

        Args:
            linear: (P,) weights of standardised columns.
            parts: the two factors.
        """
        self.last.weight.mul_(parts[0])
        self.skip.weight.mul_(parts[0]).add_(linear * parts[1])


def merged(
    members: list[Net], scaled: float, added: NDArray[np.float64], cut: NDArray[np.float32]
) -> Weights:
    """Put the mean of members into one network: side by side, their second layers apart.

    Args:
        members: of the same widths and standardised alike; that is folded into the first layer.
        scaled: factor of their mean score.
        added: (L,) weights of further columns, which have a place in `skip` alone, the last.
        cut: (6,), see `Ranker.cut_weights`.
    """
    states = [
        {name: value.detach().double() for name, value in net.state_dict().items()}
        for net in members
    ]
    every = {name: torch.cat([state[name] for state in states]).numpy() for name in states[0]}
    shift, scale = states[0]["shift"].numpy(), states[0]["scale"].numpy()
    first = every["first.weight"] / scale  # (H, P)
    share = scaled / len(members)
    arrays = {
        "first": np.concatenate([first.T, np.zeros((len(added), len(first)))]),
        "first_bias": every["first.bias"] - first @ shift,
        "second": torch.block_diag(  # type: ignore[no-untyped-call]
            *(state["second.weight"].T for state in states)
        ).numpy(),
        "second_bias": every["second.bias"],
        "last": share * every["last.weight"].ravel(),
        "skip": np.concatenate([share * every["skip.weight"].sum(axis=0) / scale, added]),
        "cut": cut,
    }
    return Weights(
        **{name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
    )
