"""AdamW: the same steps as torch's, and what is kept of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from indexer.encoder.optimizer import AdamW


def fitted(optimizer_of: type, steps: int = 20) -> torch.Tensor:
    """Return a weight after some steps towards 3."""
    weight = nn.Parameter(torch.tensor([0.0, 1.0, -4.0]))
    optimizer = optimizer_of([weight], 0.05, 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (weight - 3.0).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weight.detach()


@pytest.mark.training
def test_steps_are_those_of_torch() -> None:
    def theirs(parameters: list[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)

    torch.testing.assert_close(fitted(AdamW), fitted(theirs))  # type: ignore[arg-type]


def test_a_parameter_without_a_gradient_stays() -> None:
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight, other], 0.1)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert other.tolist() == [1.0, 1.0]
    assert weight.tolist() != [1.0, 1.0]


def test_what_compiles_models_is_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from indexer.encoder.optimizer import AdamW\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "weight.sum().backward()\n"
        "AdamW([weight], 0.1).step()\n"
        "from tracker.encoder.user_encoder import *\n"
        "path = Path(sys.argv[1])\n"
        "encoder = UserEncoder(EncoderConfig(dim=4, text_dim=3))\n"
        "save_encoder(encoder, np.zeros(0, np.uint64), path)\n"
        "load_encoder(path)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "encoder.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
