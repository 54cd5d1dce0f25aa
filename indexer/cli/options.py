"""Options that commands share, and their values gathered into dataclasses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import click

from indexer.cli.console import fail, say
from indexer.data.catalog import Catalog, read_items
from tracker.dialects.loading import FORMATS
from tracker.events.dialect import OWN
from tracker.events.entries import parse_columns
from tracker.events.kinds import Kinds
from tracker.events.times import UNITS, Unit

if TYPE_CHECKING:
    from indexer.data.users import Users
    from indexer.items.item_encoder import ItemEncoder
    from indexer.shards import Shards

P = ParamSpec("P")

version_option = click.option(
    "--artifact", "version", metavar="VERSION", help="Version to use.  [default: LATEST]"
)
signing_key_option = click.option(
    "--signing-key",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="INDEXER_SIGNING_KEY_FILE",
    show_envvar=True,
    metavar="FILE",
    help="PEM file of the Ed25519 key that signs the version, for workers that ask for it.",
)
artifacts_option = click.option(
    "--artifacts",
    "--out",
    "root",
    envvar="TRACKER_ARTIFACTS",
    show_envvar=True,
    default="artifacts",
    show_default=True,
    metavar="FOLDER|URL",
    help="Folder of the versions and LATEST, or a URL such as s3://bucket/artifacts.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)
items_option = click.option(
    "--items",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File or folder of items, JSON lines, CSV or Parquet; repeat for more.",
)
events_option = click.option(
    "--events",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File or folder of logged events, JSON lines, CSV or Parquet, or - for standard"
    " input; repeat for more.",
)


def _columns(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, str]:
    """Return the columns of `--columns`, or exit with the reason why they are none."""
    try:
        return parse_columns(text or "")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_columns_option = click.option(
    "--columns",
    callback=_columns,
    metavar="FIELD=NAME,...",
    help="Names of fields or columns in files of events, where they differ from ours; for example"
    " user=visitorid,item=itemid,kind=event.",
)
_timestamps_option = click.option(
    "--timestamps",
    type=click.Choice(UNITS),
    default="auto",
    show_default=True,
    help="Unit of timestamps that are numbers; auto: by magnitude, below 1e11 seconds, 1e14 ms,"
    " 1e17 us, else ns.",
)

_format_option = click.option(
    "--format",
    "dialect",
    default=OWN,
    show_default=True,
    metavar="FORMAT",
    help=f"Format of the events: {', '.join(FORMATS)}, cloudevents:FORMAT, or a TOML file of"
    " paths.",
)


def columns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how files of events are read."""
    return _columns_option(_timestamps_option(_format_option(command)))


users_option = click.option(
    "--users",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File or folder of users with categorical attributes, JSON lines, CSV or Parquet: a start"
    " for new users. Repeat for more.",
)
core_option = click.option(
    "--core",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave out users and items with fewer than this number of events, repeatedly.",
)
repeats_option = click.option(
    "--repeats", is_flag=True, help="Recommend items of the past again, as for groceries."
)
positive_rating_option = click.option(
    "--positive-rating",
    type=float,
    metavar="RATING",
    help="Lowest rating that counts as positive, for probabilities.  [default: from the ratings]",
)


def _rating_scale(
    context: click.Context, option: click.Parameter, scale: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Return the scale, or exit if its lowest rating is not below its highest."""
    if scale is not None and not scale[0] < scale[1]:
        raise click.BadParameter(f"{scale[0]:g} is not below {scale[1]:g}")
    return scale


rating_scale_option = click.option(
    "--rating-scale",
    type=(float, float),
    callback=_rating_scale,
    metavar="MIN MAX",
    help="Lowest and highest rating in events.  [default: from the distribution of the ratings]",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of all random choices."
)
kinds_option = click.option(
    "--kinds",
    type=click.Path(path_type=Path),
    envvar="TRACKER_KINDS_FILE",
    show_envvar=True,
    metavar="FILE",
    help="TOML file with the weights of kinds, as for the worker.  [default: the built-in table]",
)
model_option = click.option(
    "--model",
    metavar="FOLDER|NAME",
    help="Text encoder: a folder, or a name on the Hugging Face hub.  [default: MiniLM]",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to compute on; auto is a GPU if there is one.",
)
ray_option = click.option(
    "--ray",
    metavar="ADDRESS|local",
    help="Compute on the processors of a Ray cluster, at the address of its head, or on those of"
    " this machine with local. The figures do not depend on it.  [default: in this process]",
)


@dataclass(frozen=True)
class InputFlags:
    """The files that a command reads; what it has no option for is empty.

    `columns` are the names of columns in files of events, by field, where the two differ.
    """

    items: tuple[Path, ...]
    events: tuple[Path, ...] = ()
    users: tuple[Path, ...] = ()
    kinds: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    timestamps: Unit = "auto"
    dialect: str = OWN

    def read_items(self, *, skip_bad: bool = False) -> Catalog:
        """Read the catalogue.

        Raises:
            CatalogError: see `read_items`.
        """
        return read_items(self.items, skip_bad=skip_bad)

    def read_kinds(self) -> Kinds:
        """Read the weights of kinds.

        Raises:
            KindsFileError: their file cannot be used.
        """
        return read_kinds(self.kinds)

    def read_users(self) -> "Users | None":
        """Read the users; None if no file of users is given.

        Raises:
            UserFileError: see `read_users`.
        """
        from indexer.data.users import read_users

        return read_users(self.users) if self.users else None


@dataclass(frozen=True)
class ProtocolFlags:
    """The events that are learned from and those that are held out.

    `protocol` is `gts`, `loo`, or another word of the command; None if none is given.
    """

    protocol: Any
    core: int
    repeats: bool
    seed: int
    positive_rating: float | None = None
    rating_scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClusterFlags:
    """The Ray cluster that computes beside this process; None for none."""

    ray: str | None

    @contextmanager
    def shards(self) -> "Iterator[Shards | None]":
        """Connect to the cluster during the `with` block; None without one.

        Raises:
            ShardsError: see `ray_shards`.
        """
        from indexer.shards import ray_shards

        if self.ray is None:
            yield None
            return
        with ray_shards(self.ray) as shards:
            say(f"Ray: {shards.count} processor cores")
            yield shards


@dataclass(frozen=True)
class EncoderFlags:
    """The text encoder, its device, and the Ray cluster that computes; None for this process."""

    model: str | None
    device: Literal["auto", "cpu", "cuda"]
    ray: str | None = None

    def load(self, batch_size: int = 64, shards: "Shards | None" = None) -> "ItemEncoder":
        """Find the model; it is read when the first text is encoded.

        Raises:
            EncoderError: see `ItemEncoder`.
        """
        from indexer.items.item_encoder import ItemEncoder

        return ItemEncoder(self.model, self.device, batch_size, shards)

    @property
    def cluster(self) -> ClusterFlags:
        """The cluster that computes beside this process."""
        return ClusterFlags(self.ray)

    def settled(self) -> "EncoderFlags":
        """Return the flags with the device of a cluster, a processor; exit if a GPU is asked for.

        Without a cluster nothing changes.
        """
        if self.ray is None:
            return self
        if self.device == "cuda":
            fail(
                "--device cuda with --ray: a cluster computes on processors; leave one of them out"
            )
        return replace(self, device="cpu")


def gather(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass the values of options to a command as dataclasses, one per group.

    Place it below the options. An option belongs to the group that has a field of its name; a
    field with a default may have no option.

    Args:
        **groups: dataclasses by the name of the command's argument.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def gathered(**values: Any) -> None:
            arguments = {
                argument: group(
                    **{
                        part.name: values.pop(part.name)
                        for part in fields(group)
                        if part.name in values
                    }
                )
                for argument, group in groups.items()
            }
            command(**arguments, **values)

        return gathered

    return decorate


def read_kinds(path: Path | None) -> Kinds:
    """Return the weights of a file, or the built-in ones.

    Raises:
        KindsFileError: the file cannot be used.
    """
    return Kinds.default() if path is None else Kinds.load(path)
