"""Answers about the worker: partitions, other workers, artifacts, and rejected records."""

import asyncio

from tracker.api.host import Host
from tracker.api.messages import (
    ArtifactsAnswer,
    OtherWorker,
    PublishAnswer,
    RejectedRecord,
    RejectionsAnswer,
    Version,
    WorkerPartition,
    WorkersAnswer,
)
from tracker.api.problems import ProblemError
from tracker.api.server import Call
from tracker.artifact.manifest import read_manifest, verify
from tracker.artifact.versions import (
    ArtifactError,
    latest_version,
    list_versions,
    sequence_of,
    set_latest,
)

MOST_VERSIONS = 20
"""Versions whose manifests are read, the newest."""


class Fleet:
    """Answers about the worker and what it runs with.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._root = host.context.settings.artifacts
        self._publishing = asyncio.Lock()

    async def workers(self, call: Call) -> WorkersAnswer:
        """Return this worker's partitions, and the other workers."""
        partitions = [
            WorkerPartition(
                part.topic,
                part.number,
                part.lag,
                part.store.progress.position if part.store.is_open else -1,
                len(part.store.arena),
                part.waits_for,
            )
            for part in self._host.all_partitions()
        ]
        others: dict[str, list[int]] = {}
        for number, address in sorted(self._host.addresses().items()):
            others.setdefault(address, []).append(number)
        reasons = self._host.reasons()
        return WorkersAnswer(
            self._host.address,
            self._host.context.keeper.current.version,
            not reasons,
            reasons,
            sorted(partitions, key=lambda part: (part.topic, part.partition)),
            [OtherWorker(address, numbers) for address, numbers in others.items()],
            {name: kind.weight for name, kind in self._host.context.kinds.table.items()},
            self._host.context.keeper.current.recommender.options.diversity_weight,
        )

    async def artifacts(self, call: Call) -> ArtifactsAnswer:
        """Return the versions of the artifact."""
        in_use = self._host.context.keeper.current.version
        return await asyncio.to_thread(self._versions, in_use)

    async def publish(self, call: Call) -> PublishAnswer:
        """Make a version the latest, after a check of its files."""
        version = call.path["version"]
        async with self._publishing:
            return await asyncio.to_thread(self._publish, version)

    async def rollback(self, call: Call) -> PublishAnswer:
        """Make the version before the latest the latest."""
        async with self._publishing:
            return await asyncio.to_thread(self._publish, None)

    async def rejections(self, call: Call) -> RejectionsAnswer:
        """Return the records that were not taken."""
        context = self._host.context
        last = [
            RejectedRecord(
                one.rejection.reason,
                one.rejection.message,
                one.rejection.topic,
                one.rejection.partition,
                one.rejection.offset,
                one.value.decode("utf-8", "replace"),
            )
            for one in reversed(list(context.rejections)[-call.query.k :])
        ]
        return RejectionsAnswer(context.metrics.rejected_by_reason(), last)

    def _versions(self, in_use: str) -> ArtifactsAnswer:
        try:
            names = list_versions(self._root)[::-1]
            latest = latest_version(self._root) if names else None
        except ArtifactError as error:
            raise ProblemError(503, str(error)) from error
        versions = []
        for name in names[:MOST_VERSIONS]:
            try:
                manifest = read_manifest(self._root, name)
            except ArtifactError:
                versions.append(Version(name, name == latest, name == in_use))
                continue
            versions.append(
                Version(
                    name,
                    name == latest,
                    name == in_use,
                    manifest.created,
                    manifest.live,
                    manifest.recall_at_10,
                )
            )
        return ArtifactsAnswer(in_use, latest, versions, self._host.context.keeper.problem)

    def _publish(self, version: str | None) -> PublishAnswer:
        try:
            names = list_versions(self._root)
            before = latest_version(self._root) if names else None
            if version is None:
                older = [
                    name
                    for name in names
                    if before is not None and sequence_of(name) < sequence_of(before)
                ]
                if not older:
                    raise ProblemError(409, f"there is no version before {before}")
                version = older[-1]
            if version not in names:
                raise ProblemError(404, "there is no such version; GET /v1/artifacts names them")
            verify(self._root, read_manifest(self._root, version))
            set_latest(self._root, version)
        except ArtifactError as error:
            raise ProblemError(409, str(error)) from error
        return PublishAnswer(version, before)
