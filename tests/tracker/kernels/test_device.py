"""The choice of a device, with and without a GPU."""

import pytest
import torch

from tracker.kernels.device import DeviceError, pick_device, torch_device


@pytest.mark.parametrize(
    ("device", "has_gpu", "expected"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_the_gpu_is_used_if_there_is_one(device: str, has_gpu: bool, expected: str) -> None:
    assert pick_device(device, has_gpu, "no GPU") == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"device is 'tpu'; auto, cpu or cuda expected"):
        pick_device("tpu", True, "no GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert torch_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="torch finds no CUDA device; choose auto or cpu"):
        torch_device("cuda")
