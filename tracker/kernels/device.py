"""The device that vectors are searched and computed on: the CPU or a GPU."""

from typing import TYPE_CHECKING, Literal

from tracker.explained import Explained

if TYPE_CHECKING:  # torch takes seconds to import, and FAISS on a CPU does without
    import torch

Device = Literal["auto", "cpu", "cuda"]
"""The choice in settings and options; `auto` is a GPU if there is one."""


class DeviceError(Explained, ValueError):
    """The device does not exist, or it is a GPU and none is found."""


def pick_device(device: str, has_gpu: bool, missing: str) -> Literal["cpu", "cuda"]:
    """Return the device to use; `auto` is the GPU if there is one.

    Args:
        device: `auto`, `cpu` or `cuda`.
        has_gpu: whether the library that computes finds a GPU.
        missing: what to say if it is asked for and does not: the library, and the remedy.

    Raises:
        DeviceError: another name, or `cuda` without a GPU.

    >>> pick_device("auto", False, "no GPU")
    'cpu'
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {device!r}; auto, cpu or cuda expected")
    if device == "cuda" and not has_gpu:
        raise DeviceError(f"device is cuda, and {missing}")
    return "cuda" if has_gpu and device != "cpu" else "cpu"


def torch_device(device: str) -> "torch.device":
    """Return the device that torch computes on; `auto` is the GPU if torch finds one.

    Raises:
        DeviceError: another name than `auto`, `cpu` or `cuda`, or `cuda` without a GPU.
    """
    import torch

    available = torch.cuda.is_available()
    return torch.device(
        pick_device(device, available, "torch finds no CUDA device; choose auto or cpu")
    )
