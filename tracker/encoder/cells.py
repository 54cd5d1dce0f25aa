"""Recurrent cells: GRU, LSTM and a gated linear recurrence, over a history or by one event."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CellName = Literal["gru", "lstm", "linear"]


class GruCell(nn.Module):
    """Gated recurrent unit; its state is h (B, D)."""

    parts = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.GRU(dim, dim, batch_first=True)

    def forward(self, inputs: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run over histories (B, T, D) of `lengths` (B,) >= 1 events from `state` (B, D).

        Returns:
            outputs (B, T, D), meaningless past a history's end, and the states (B, D) at its end.
        """
        outputs, _ = self.layer(inputs, state.unsqueeze(0).contiguous())
        return outputs, _at_end(outputs, lengths)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one event (B, D) from `state` (B, D): output and new state, both (B, D)."""
        from_inputs, from_state = _halves(self.layer, inputs, state)  # (B, 3D) each
        input_reset, input_update, input_new = from_inputs.chunk(3, dim=-1)
        state_reset, state_update, state_new = from_state.chunk(3, dim=-1)
        reset = torch.sigmoid(input_reset + state_reset)
        update = torch.sigmoid(input_update + state_update)
        new = torch.tanh(input_new + reset * state_new)
        after = new + update * (state - new)
        return after, after


class LstmCell(nn.Module):
    """Long short-term memory; its state is h and c, side by side (B, 2D)."""

    parts = 2

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, inputs: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run over histories (B, T, D) of `lengths` (B,) >= 1 events from `state` (B, 2D).

        The fused kernel keeps c of the last event only, so that histories are packed.

        Returns:
            outputs (B, T, D), meaningless past a history's end, and the states (B, 2D) at its end.
        """
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, memory = state.unsqueeze(0).chunk(2, dim=-1)
        outputs, last = self.layer(packed, (hidden.contiguous(), memory.contiguous()))
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        return padded, torch.cat([last[0][0], last[1][0]], dim=-1)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one event (B, D) from `state` (B, 2D): output (B, D) and new state (B, 2D)."""
        hidden, memory = state.chunk(2, dim=-1)
        from_inputs, from_state = _halves(self.layer, inputs, hidden)  # (B, 4D) each
        enter, forget, new, leave = (from_inputs + from_state).chunk(4, dim=-1)
        memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(memory)
        return hidden, torch.cat([hidden, memory], dim=-1)


class LinearCell(nn.Module):
    """Gated diagonal linear recurrence; its state is h (B, D), and a history runs in parallel.

    `h' = a h + sqrt(1 - a^2) (i x)` with `a = exp(-8 softplus(decay) r)`, r and i sigmoids of the
    event alone, so that an associative scan gives all states in log2(T) passes. As the time gap is
    part of the event, forgetting depends on the clock.
    Source: De et al. 2024, "Griffin", section 2.4 (RG-LRU); real where Orvieto et al. 2023 (LRU)
    and LRURec are complex, which halves the state. The normaliser's square root has a floor.
    """

    parts = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, dim)
        self.gates = nn.Linear(dim, 2 * dim)
        self.leave = nn.Linear(dim, dim)
        # a is spread over .5 to .99 where the gate r is one half: short and long memories.
        spread = torch.linspace(0.5, 0.99, dim)
        self.decay = nn.Parameter(torch.log(torch.expm1(-torch.log(spread) / 4.0)))

    def _terms(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        recurrence, gate = torch.sigmoid(self.gates(inputs)).chunk(2, dim=-1)
        keep = torch.exp(-8.0 * functional.softplus(self.decay) * recurrence)
        norm = torch.sqrt(torch.clamp(1.0 - keep * keep, min=1e-6))
        return keep, norm * gate * self.enter(inputs)

    def forward(self, inputs: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run over histories (B, T, D) of `lengths` (B,) >= 1 events from `state` (B, D).

        Returns:
            outputs (B, T, D), meaningless past a history's end, and the states (B, D) at its end.
        """
        keep, add = self._terms(inputs)
        states = linear_scan(keep, add, state)
        return self.leave(states), _at_end(states, lengths)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one event (B, D) from `state` (B, D): output and new state, both (B, D)."""
        keep, add = self._terms(inputs)
        after = keep * state + add
        return self.leave(after), after


Cell = GruCell | LstmCell | LinearCell


def make_cell(name: CellName, dim: int) -> Cell:
    """Return the cell of that name.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "gru":
        return GruCell(dim)
    if name == "lstm":
        return LstmCell(dim)
    if name == "linear":
        return LinearCell(dim)
    raise ValueError(f"cell {name!r}; expected gru, lstm or linear")


def linear_scan(keep: Tensor, add: Tensor, start: Tensor) -> Tensor:
    """Return every `h_t = keep_t * h_(t-1) + add_t`, in ceil(log2 T) passes.

    Pairs (keep, add) compose associatively, so spans of twice the length come from two spans each
    pass. Source: Hillis & Steele 1986, "Data Parallel Algorithms".

    Args:
        keep: (B, T, ...) factors.
        add: (B, T, ...) of the same shape.
        start: (B, ...) the state before the first event.

    Returns:
        (B, T, ...) states after each event.
    """
    length = add.shape[1]
    total = torch.cat([add[:, :1] + keep[:, :1] * start.unsqueeze(1), add[:, 1:]], dim=1)
    span = 1
    while span < length:
        shifted = total[:, :-span] * keep[:, span:]
        total = torch.cat([total[:, :span], total[:, span:] + shifted], dim=1)
        keep = torch.cat([keep[:, :span], keep[:, span:] * keep[:, :-span]], dim=1)
        span *= 2
    return total


def _at_end(states: Tensor, lengths: Tensor) -> Tensor:
    last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, last).squeeze(1)  # (B, D)


def _halves(layer: nn.RNNBase, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    from_inputs, from_state = (
        functional.linear(
            value, layer.get_parameter(f"weight_{name}_l0"), layer.get_parameter(f"bias_{name}_l0")
        )
        for name, value in (("ih", inputs), ("hh", hidden))
    )
    return from_inputs, from_state
