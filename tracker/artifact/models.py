"""Models: what training adds to an artifact, each in files of its own; their reader and writer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.artifact.manifest import LAYOUT, REBUILD, Manifest
from tracker.artifact.versions import ArtifactError
from tracker.files import write_synced
from tracker.kernels.device import Device
from tracker.scoring.item_weights import ItemWeights, ItemWeightsFileError
from tracker.scoring.network import Network, RankerFileError
from tracker.scoring.prediction import Prediction, PredictionFileError

if TYPE_CHECKING:  # torch takes seconds to import, and only a trained encoder needs it
    from tracker.encoder.tower import Tower


@dataclass(frozen=True, slots=True)
class Models:
    """Trained models of an artifact, None for those that were not trained.

    The tracker also serves without any of them.

    Attributes:
        ranker: scores candidates; without it the fixed blend does.
        tower: the user encoder with the items in its space: a channel of candidates, and a score.
        prediction: the probability of a positive event.
        item_weights: how much a past item speaks for another: a source of candidates, and a score.
    """

    ranker: Network | None = None
    tower: "Tower | None" = None
    prediction: Prediction | None = None
    item_weights: ItemWeights | None = None

    @property
    def hidden(self) -> int:
        """The width of the encoder's state in a user's row; 0 without an encoder."""
        return 0 if self.tower is None else self.tower.width


UNTRAINED = Models()
"""Nothing was trained."""


def write_models(folder: Path, models: Models) -> None:
    """Write the models' files into a directory, and wait until they are on disk.

    Raises:
        OSError: they cannot be written.
    """
    if models.ranker is not None:
        write_synced(folder / LAYOUT.ranker, models.ranker.to_bytes())
    if models.tower is not None:
        from tracker.artifact.tower_files import write_tower

        write_tower(folder, models.tower)
    if models.prediction is not None:
        write_synced(folder / LAYOUT.prediction, models.prediction.to_bytes())
    if models.item_weights is not None:
        write_synced(folder / LAYOUT.item_weights, models.item_weights.to_bytes())


def read_models(path: Path, manifest: Manifest, device: Device = "cpu") -> Models:
    """Read the models that a manifest describes, from a directory that `verify` has passed.

    Args:
        path: the directory.
        manifest: of the version.
        device: device of the encoder; `auto` is the GPU if there is one.

    Raises:
        ArtifactError: a file is not what the manifest says, or not listed there.
        DeviceError: device `cuda` without a GPU.
    """
    return Models(
        ranker=_read_ranker(path, manifest),
        tower=_read_tower(path, manifest, device),
        prediction=_read_prediction(path, manifest),
        item_weights=_read_item_weights(path, manifest),
    )


def _read_ranker(path: Path, manifest: Manifest) -> Network | None:
    if manifest.ranker is None:
        return None
    _check_listed(path, manifest, LAYOUT.ranker, "a ranker")
    try:
        return Network.load(path / LAYOUT.ranker, manifest.ranker)
    except RankerFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error


def _read_tower(path: Path, manifest: Manifest, device: Device) -> "Tower | None":
    info = manifest.tower
    if info is None:
        return None
    from tracker.artifact.tower_files import TowerFileError, files_of, read_tower

    for name in files_of(info):
        _check_listed(path, manifest, name, "a user encoder")
    try:
        return read_tower(path, info, manifest.items, manifest.live, manifest.dim, device)
    except TowerFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error


def _read_prediction(path: Path, manifest: Manifest) -> Prediction | None:
    if manifest.prediction is None:
        return None
    _check_listed(path, manifest, LAYOUT.prediction, "a prediction")
    try:
        return Prediction.load(path / LAYOUT.prediction, manifest.prediction)
    except PredictionFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error


def _read_item_weights(path: Path, manifest: Manifest) -> ItemWeights | None:
    if manifest.item_weights is None:
        return None
    _check_listed(path, manifest, LAYOUT.item_weights, "item weights")
    try:
        return ItemWeights.load(path / LAYOUT.item_weights, manifest.item_weights)
    except ItemWeightsFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error


def _check_listed(path: Path, manifest: Manifest, name: str, what: str) -> None:
    if name not in manifest.files:
        raise ArtifactError(
            f"{path / name}: the manifest describes {what}, and lists no file of it; {REBUILD}"
        )
