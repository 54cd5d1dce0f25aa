"""The console script `indexer`: build, train, evaluate, finetune, list, publish and so on."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from indexer.cli.console import (
    EPILOG,
    RECALL_TOO_LOW,
    check_root,
    encoding_bar,
    fail,
    failures,
    print_json,
    say,
)
from indexer.cli.finetune import finetune
from indexer.cli.learning import evaluate, train
from indexer.cli.options import (
    EncoderFlags,
    InputFlags,
    artifacts_option,
    device_option,
    gather,
    json_option,
    model_option,
    ray_option,
    signing_key_option,
    users_option,
)
from indexer.cli.vectors import export, trace
from tracker.artifact.versions import ArtifactError, latest_version

if TYPE_CHECKING:
    from tracker.scoring.network import RankerInfo

if TYPE_CHECKING:
    from indexer.items.options import BuildOptions


@dataclass(frozen=True)
class BuildFlags:
    """The shape of vectors and states, and the index; None for what the current version has."""

    dim: int | None
    half_lives: tuple[float, ...]
    slots: int | None
    rating_scale: tuple[float, float] | None
    min_recall: float
    index: Any
    refit: bool

    def options(self, signing_key: Path | None = None) -> "BuildOptions":
        """Return the options of a build."""
        from indexer.items.options import BuildOptions

        return BuildOptions(
            dim=self.dim,
            half_lives_seconds=self.half_lives or None,
            slots=self.slots,
            rating_scale=self.rating_scale,
            min_recall=self.min_recall,
            index=self.index,
            refit=self.refit,
            signing_key=signing_key,
        )


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="interest-tracker", prog_name="indexer")
def main() -> None:
    """Build item vectors and their index from a catalogue, train on events, and evaluate."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)


@main.command(epilog=EPILOG)
@click.argument(
    "items", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ITEMS..."
)
@artifacts_option
@model_option
@device_option
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Number of texts to encode at once.",
)
@click.option(
    "--dim",
    type=click.IntRange(1, 4096),
    help="Dimensions of item vectors and of the sums in a state.  [default: unchanged, or 64]",
)
@click.option(
    "--half-life",
    "half_lives",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    metavar="SECONDS",
    help="Half-life of a decayed sum in a state; repeat once per sum.  [default: unchanged, or 30"
    " minutes, 1 day, 7 days, 60 days]",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 64),
    help="Maximum number of interests per user.  [default: unchanged, or 8]",
)
@click.option(
    "--rating-scale",
    type=(float, float),
    metavar="MIN MAX",
    help="Lowest and highest rating in events.  [default: unchanged, or 1 5]",
)
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Minimum recall@10 against exact search; below it nothing is published.",
)
@click.option(
    "--index",
    type=click.Choice(["auto", "flat", "pq_fastscan", "ivf_pq_fastscan"]),
    default="auto",
    show_default=True,
    help="Kind of index; auto depends on the number of items.",
)
@click.option(
    "--refit",
    is_flag=True,
    help="Fit the whitening again, and accept changed options or another text encoder. Every user's"
    " state is then rebuilt from its most recent events.",
)
@users_option
@signing_key_option
@click.option("--skip-bad-items", is_flag=True, help="Leave out items that cannot be used.")
@ray_option
@json_option
@gather(inputs=InputFlags, encoder=EncoderFlags, flags=BuildFlags)
def build(
    inputs: InputFlags,
    encoder: EncoderFlags,
    flags: BuildFlags,
    root: str,
    batch_size: int,
    signing_key: Path | None,
    skip_bad_items: bool,
    as_json: bool,
) -> None:
    """Build an artifact from ITEMS and make it current.

    ITEMS are the files or folders of one catalogue: JSON lines, CSV or Parquet, also compressed.
    Known texts are not encoded again, unchanged items keep their vectors, and users keep their
    states.
    """
    started = time.perf_counter()
    with failures():
        encoder = encoder.settled()
        catalog = inputs.read_items(skip_bad=skip_bad_items)
        check_root(root)
        # They bring torch and FAISS along, which take seconds: not for a wrong file of items.
        from indexer.items.assemble import RecallError, build_artifact

        if catalog.skipped:
            lines = "".join(f"\n  {problem}" for problem in catalog.problems)
            click.echo(f"{catalog.skipped} items left out:{lines}", err=True)
        if catalog.ignored_fields:
            click.echo(f"fields not used: {', '.join(catalog.ignored_fields)}", err=True)
        for note in catalog.notes:
            say(note)
        try:
            users = inputs.read_users()
            with encoder.cluster.shards() as shards, encoding_bar() as progress:
                text_encoder = encoder.load(batch_size, shards)
                built = build_artifact(
                    catalog, text_encoder, root, flags.options(signing_key), progress, users
                )
        except RecallError as error:
            fail(str(error), RECALL_TOO_LOW)
    built = msgspec.structs.replace(built, seconds=round(time.perf_counter() - started, 2))
    if built.basis_changed:
        click.echo(
            "the basis changed: workers rebuild each user's state from its recent events", err=True
        )
    if as_json:
        print_json(built)
        return
    click.echo(
        f"{built.version}: {built.live} items ({built.encoded} texts encoded, {built.reused} known,"
        f" {built.retired} retired), {built.index} index, recall@10 {built.recall_at_10:.4f},"
        f" {built.microseconds:g} µs a query, {built.seconds:g} s"
    )


@main.command("list", epilog=EPILOG)
@artifacts_option
@json_option
def list_(root: str, as_json: bool) -> None:
    """List the versions, oldest first; LATEST is marked."""
    from indexer.items.publish import overview

    with failures():
        versions = overview(root)
    if as_json:
        print_json({"artifacts": root, "versions": versions})
        return
    if not versions:
        click.echo(f"{root}: no version; build one with `indexer build ITEMS --out {root}`")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("version", "", "created", "items", "retired", "index", "recall@10", "basis"):
        table.add_column(name, justify="right" if name in ("items", "retired") else "left")
    for line in versions:
        if line.problem:
            table.add_row(line.version, "", f"damaged: {line.problem}")
            continue
        table.add_row(
            line.version,
            "LATEST" if line.latest else "",
            line.created,
            str(line.live),
            str(line.retired),
            line.index,
            f"{line.recall_at_10:.4f}",
            line.basis,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@main.command(epilog=EPILOG)
@click.argument("version", required=False)
@artifacts_option
@json_option
def show(version: str | None, root: str, as_json: bool) -> None:
    """Show the manifest of VERSION, and check all of its files.

    Without VERSION it is that of LATEST.
    """
    from tracker.artifact.manifest import read_manifest, verify

    with failures():
        manifest = read_manifest(root, latest_version(root) if version is None else version)
        verify(root, manifest)
    if as_json:
        print_json(manifest)
        return
    interest = manifest.interest
    lines = {
        "version": manifest.version,
        "created": manifest.created,
        "items": f"{manifest.live} and {manifest.items - manifest.live} retired",
        "encoder": f"{manifest.encoder.name} ({manifest.encoder.fingerprint[:8]}),"
        f" width {manifest.encoder.width}",
        "basis": f"{manifest.basis}, fitted on {manifest.fitted_on} items",
        "vectors": f"{manifest.dim} of {manifest.full_dim} dims",
        "half-lives": ", ".join(f"{seconds:g} s" for seconds in interest.half_lives_seconds),
        "slots": str(interest.slots),
        "ratings": f"{interest.rating_min:g} to {interest.rating_max:g}",
        "index": f"{manifest.index.kind} {manifest.index.parameters or ''}".strip(),
        "recall@10": f"{manifest.recall_at_10:.4f} over {manifest.index.queries} queries",
        "search": f"{manifest.index.microseconds:g} µs a query on one thread, when built",
        "ranker": manifest.ranked_by,
        **_candidates(manifest.ranker),
        **{f"no {name}": why for name, why in manifest.untrained.items()},
        "files": f"{len(manifest.files)}, all as their SHA-256 says",
    }
    for name, text in lines.items():
        click.echo(f"{name:<15}{text}")


def _candidates(ranker: "RankerInfo | None") -> dict[str, str]:
    """Return a line on where candidates come from, and one on what they hold, if measured."""
    from tracker.scoring.retrieval import recall_lines

    lines = [] if ranker is None else recall_lines(ranker.retrieval)
    return dict(zip(("candidates", "they hold"), lines, strict=False))


@main.command(epilog=EPILOG)
@click.argument("version", required=False)
@artifacts_option
@json_option
def rollback(version: str | None, root: str, as_json: bool) -> None:
    """Make VERSION current again, by default the one before LATEST."""
    from indexer.items.publish import rollback as go_back

    _switch(root, as_json, lambda: go_back(root, version).version)


@main.command(epilog=EPILOG)
@click.argument("version")
@artifacts_option
@json_option
def publish(version: str, root: str, as_json: bool) -> None:
    """Make VERSION current, after a check of its files."""
    from indexer.items.publish import publish as make_current

    _switch(root, as_json, lambda: make_current(root, version).version)


@main.command(epilog=EPILOG)
@click.argument("version")
@artifacts_option
@signing_key_option
def sign(version: str, root: str, signing_key: Path | None) -> None:
    """Sign VERSION after a check of its files; print the public key.

    The key is written by openssl genpkey -algorithm ed25519 -out key.pem. Workers with the public
    key in TRACKER_ARTIFACT_PUBLIC_KEY load nothing else.
    """
    if signing_key is None:
        raise click.UsageError("give --signing-key")
    from indexer.items.publish import sign as sign_version

    with failures():
        public = sign_version(root, version, signing_key)
    click.echo(f"{version} is signed; TRACKER_ARTIFACT_PUBLIC_KEY={public}")


def _switch(root: str, as_json: bool, switch: Callable[[], str]) -> None:
    with failures():
        try:
            before: str | None = latest_version(root)
        except ArtifactError:
            before = None
        after = switch()
    if as_json:
        print_json({"before": before, "latest": after})
    else:
        click.echo(f"LATEST is {after} (was {before or 'none'})")


main.add_command(train)
main.add_command(evaluate)
main.add_command(export)
main.add_command(trace)
main.add_command(finetune)
