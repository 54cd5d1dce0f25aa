"""Manifest: what an artifact says of itself, and the checks of its files against it."""

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tracker.artifact.signature import SIGNATURE, SigningKey, check_signature
from tracker.artifact.versions import (
    MANIFEST,
    ArtifactError,
    Root,
    add_version,
    list_versions,
    local_copy,
    read_bytes,
    sequence_of,
    version_name,
)
from tracker.encoder.tower_info import TowerInfo
from tracker.files import write_synced
from tracker.items.config import FORMER, ItemCounts
from tracker.scoring.item_weights import ItemWeightsInfo
from tracker.scoring.network import RankerInfo
from tracker.scoring.prediction import PredictionInfo
from tracker.users.config import InterestConfig

REBUILD = "go back with `indexer rollback`, or build it again with `indexer build --refit`"

FORMAT = 1
"""The format number that is written, and the only one that is read."""

MOST_DIM = 65536
"""Most columns of a vector that a manifest may name."""


@dataclass(frozen=True)
class Layout:
    """Names of the files in an artifact's directory."""

    manifest: str = MANIFEST
    items: str = "items.json"
    vectors: str = "vectors.safetensors"
    index: str = "index.faiss"
    basis: str = "basis.safetensors"
    encodings: str = "encodings.safetensors"
    texts: str = "texts.json"
    ranker: str = "ranker.safetensors"
    user_encoder: str = "user_encoder.safetensors"
    encoder_items: str = "encoder_items.safetensors"
    encoder_index: str = "encoder_index.faiss"
    scene_attention: str = "scene_attention.safetensors"
    user_attributes: str = "user_attributes.safetensors"
    prediction: str = "prediction.safetensors"
    item_weights: str = "item_weights.safetensors"


LAYOUT = Layout()


class EncoderInfo(msgspec.Struct, frozen=True):
    """Text encoder that made the vectors; `fingerprint` is a hash of weights and tokenizer.

    `training` says its training data, if it was fine-tuned and names them.
    """

    name: str
    fingerprint: str
    width: int
    max_tokens: int
    pooling: str = "mean"
    training: "TrainingInfo | None" = None


class IndexInfo(msgspec.Struct, frozen=True):
    """The index as measured when it was built.

    `recall_at_10` is against exact search over `queries` queries; `microseconds` is for one query
    on one thread of the building machine, in batches of 500.
    """

    kind: str
    parameters: dict[str, int]
    recall_at_10: float
    queries: int
    microseconds: float


class PrivateFit(msgspec.Struct, frozen=True):
    """A fit under differential privacy: its users, and how they were used.

    A step takes each of `users` with the probability `sample_rate`, cuts the gradient of each to
    the length `clip`, and adds noise. There were `steps`.
    """

    users: int
    sample_rate: float
    steps: int
    clip: float


class PrivacyInfo(msgspec.Struct, frozen=True):
    """Differential privacy of a training, where adding or removing a user is what is not told.

    `epsilon` and `delta` were asked for; `spent` is the epsilon that the `fits`, by the name of the
    model, have used of it. `noise_multiplier` is the standard deviation of the noise over `clip`.
    `ndcg_at_10` is the private ranker's on held-out events among sampled items, and
    `ndcg_at_10_without` that of a ranker without privacy on the same. `not_private` names what the
    noise does not cover.
    """

    epsilon: float
    delta: float
    spent: float
    noise_multiplier: float
    fits: dict[str, PrivateFit]
    ndcg_at_10: float
    ndcg_at_10_without: float
    not_private: list[str]

    @property
    def line(self) -> str:
        """Return a line for people: the budget, and its cost."""
        return (
            f"private: epsilon {self.spent:.4g} of {self.epsilon:g} spent at delta {self.delta:g};"
            f" NDCG@10 {self.ndcg_at_10:.4f} among sampled items instead of"
            f" {self.ndcg_at_10_without:.4f}"
        )


class TrainingInfo(msgspec.Struct, frozen=True):
    """Data that a model was trained on, so that it is never judged by events it has seen.

    `protocol` names the split whose test targets were left out, None if all events were used.
    `fitted_before` (seconds) is a time that no event seen has reached, None if there is no such
    time (`loo`). `left_out` targets were held out; `left_out_digest` stands for them. `privacy` is
    there if the fits were differentially private.
    """

    protocol: Literal["gts", "loo"] | None
    core: int
    repeats: bool
    seed: int
    examples: int
    fitted_before: float | None
    left_out: int
    left_out_digest: str
    privacy: PrivacyInfo | None = None


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of an artifact, stored as `manifest.json`.

    `basis` names whitening, projection and `interest` together: under one basis an unchanged text
    keeps its vector bit by bit, and states their meaning. `fitted_on` items shaped the whitening.
    `live` of the `items` are in the catalogue. The last `without_text` of these have no text: their
    vectors are zeros, and the index does not hold them. `item_counts` are the half-lives of the
    items' counts; a manifest without them is of a version that had those of FORMER. `files` has the
    SHA-256 of each file.
    `ranker`, `tower` (the user encoder), `prediction`, `item_weights` and `training` are there if
    they were trained. `untrained` says why one of these was not, by its name, if there was a
    training.
    """

    format: int
    version: str
    sequence: int
    created: str
    basis: str
    dim: int
    full_dim: int
    items: int
    live: int
    fitted_on: int
    encoder: EncoderInfo
    interest: InterestConfig
    index: IndexInfo
    files: dict[str, str]
    ranker: RankerInfo | None = None
    training: TrainingInfo | None = None
    tower: TowerInfo | None = None
    prediction: PredictionInfo | None = None
    item_weights: ItemWeightsInfo | None = None
    untrained: dict[str, str] = {}
    without_text: int = 0
    item_counts: ItemCounts = FORMER

    def __post_init__(self) -> None:
        """Check the counts, by which files are read and rows are found."""
        for name, value, least, most in (
            ("sequence", self.sequence, 0, 10**12 - 1),
            ("dim", self.dim, 1, self.full_dim),
            ("full_dim", self.full_dim, 1, MOST_DIM),
            ("live", self.live, 1, self.items),
            ("without_text", self.without_text, 0, self.live),
            ("encoder.width", self.encoder.width, 1, MOST_DIM),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; {least} to {most} is expected")

    @property
    def recall_at_10(self) -> float:
        """Return the index's measured recall of the best 10."""
        return self.index.recall_at_10

    def without(self, model: Literal["tower", "prediction"]) -> str:
        """Return a line: a model was not trained, why, and what to do."""
        what = {"tower": "user encoder", "prediction": "trained prediction"}[model]
        why = self.untrained.get(model)
        remedy = f": {why}" if why else "; `indexer train` learns one"
        return f"{self.version} has no {what}{remedy}"

    @property
    def ranked_by(self) -> str:
        """Return a line that describes the ranker."""
        if self.ranker is None or self.training is None:
            return "the fixed blend, nothing was trained"
        training = self.training
        left_out = f", {training.left_out} targets of {training.protocol} left out"
        return (
            f"trained on {training.examples} examples, {len(self.ranker.columns)} features"
            f"{left_out if training.protocol else ''}"
            f"{'' if training.privacy is None else f'; {training.privacy.line}'}"
        )


def read_manifest(root: Root, version: str, public_key: str | None = None) -> Manifest:
    """Read a version's manifest alone.

    Args:
        root: folder or URL of the versions.
        version: which.
        public_key: key that must have signed it; None if it need not be signed.

    Raises:
        ArtifactError: it is not there, altered, of a format this program does not know, or not
            signed by the key.
    """
    sequence_of(version)
    where = f"{root}/{version}/{LAYOUT.manifest}"
    try:
        content = read_bytes(root, f"{version}/{LAYOUT.manifest}")
    except ArtifactError as error:
        if version in list_versions(root):
            raise
        raise ArtifactError(
            f"{root}/{version}: not there; `indexer list --artifacts {root}` shows the versions"
        ) from error
    if public_key is not None:
        try:
            signature = read_bytes(root, f"{version}/{SIGNATURE}")
        except ArtifactError:
            signature = b""
        check_signature(where, content, signature, public_key)
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{where}: not JSON ({error}); {REBUILD}") from error
    number = fields.get("format")
    if number != FORMAT:
        raise ArtifactError(
            f"{where}: format {number!r} found, {FORMAT} expected; build it again with the indexer"
            " of this release, or upgrade this program"
        )
    try:
        manifest = msgspec.convert(fields, Manifest)
    except msgspec.ValidationError as error:
        raise ArtifactError(f"{where}: {error}; {REBUILD}") from error
    expected = version_name(manifest.sequence, _digest(fields))
    if not manifest.version == version == expected:
        raise ArtifactError(
            f"{where}: altered: version {manifest.version} found, its content is that of"
            f" {expected}; {REBUILD}"
        )
    unknown = set(manifest.files) - set(astuple(LAYOUT))
    if unknown:
        raise ArtifactError(f"{where}: lists unknown files: {', '.join(sorted(unknown))}")
    return manifest


def place_of(
    root: Root, manifest: Manifest, cache: Path | None = None, slowly: bool = False
) -> Path:
    """Return the directory that holds a version's files on this machine; see `local_copy`.

    Raises:
        ArtifactError: they cannot be downloaded or copied.
    """
    return local_copy(root, manifest.version, [LAYOUT.manifest, *manifest.files], cache, slowly)


def verify(root: Root, manifest: Manifest, cache: Path | None = None) -> Path:
    """Compare every file of a version with its SHA-256; return the directory that holds them.

    Raises:
        ArtifactError: a file is missing, cut short or altered.
    """
    path = place_of(root, manifest, cache)
    for name, expected in manifest.files.items():
        try:
            if (path / name).is_symlink():
                raise ArtifactError(f"{path / name}: a link; a file is expected; {REBUILD}")
            digest = sha256_of(path / name)
        except OSError as error:
            raise ArtifactError(
                f"{path / name}: cannot be read: {error.strerror}; {REBUILD}"
            ) from error
        if digest != expected:
            raise ArtifactError(
                f"{path / name}: altered or cut short: SHA-256 {digest[:12]}... found,"
                f" {expected[:12]}... expected; {REBUILD}"
            )
    return path


def add_artifact(
    root: Root, staged: Path, manifest: Manifest, key: SigningKey | None = None
) -> Manifest:
    """Write the manifest of a complete directory, and move it into the root as the next version.

    Args:
        root: folder or URL of the versions; LATEST stays as it is.
        staged: what `write_files` wrote.
        manifest: complete but for `version` and `sequence`.
        key: signs the manifest; None leaves it unsigned.

    Returns:
        the manifest as written.

    Raises:
        ArtifactError: a remote root cannot be written.
        OSError: a local one cannot.
    """
    written = manifest

    def name_it(sequence: int) -> str:
        nonlocal written
        fields = msgspec.to_builtins(msgspec.structs.replace(manifest, sequence=sequence))
        version = version_name(sequence, _digest(fields))
        written = msgspec.structs.replace(manifest, sequence=sequence, version=version)
        content = msgspec.json.format(msgspec.json.encode(written), indent=2)
        write_synced(staged / LAYOUT.manifest, content + b"\n")
        if key is not None:
            write_synced(staged / SIGNATURE, key.sign(content + b"\n"))
        return version

    add_version(root, staged, name_it)
    return written


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, its version left out."""
    content = {name: value for name, value in fields.items() if name != "version"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
