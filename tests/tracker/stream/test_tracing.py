"""Traces: a chunk with its parts, and nothing where they are off."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.plane_world import RunningPartition, WorkerState, like, run_partition
from tests.tracker.kafka.test_outbox import FakeProducer, records
from tracker.kafka.outbox import Outbox
from tracker.stream.partition import SMALL_RECORDS
from tracker.stream.tracing import TracingError, no_trace, start_tracing, trace_with


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracing_to(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


def parent_of(span: ReadableSpan, spans: tuple[ReadableSpan, ...]) -> str | None:
    names = {one.context.span_id: one.name for one in spans}
    return None if span.parent is None else names[span.parent.span_id]


@pytest.mark.parametrize("size", [2, SMALL_RECORDS + 1])  # on the event loop, and in a thread
def test_a_chunk_is_a_trace_of_its_parts(
    tmp_path: Path, spans: InMemorySpanExporter, size: int
) -> None:
    worker = WorkerState(tmp_path)
    worker.context = replace(worker.context, trace=trace_with(tracing_to(spans)))
    worker.restart()

    async def work(running: RunningPartition) -> None:
        chunk = worker.records(*(like("a", n % 40) for n in range(size)))
        running.accept(0, chunk)
        await running.applied(size)

    run_partition(worker, work)
    worker.close()
    found = spans.get_finished_spans()
    assert {span.name: parent_of(span, found) for span in found} == {
        "decode": "chunk",
        "load": "chunk",
        "state": "chunk",
        "search": "chunk",
        "rank": "chunk",
        "encode": "chunk",
        "chunk": None,
    }
    (chunk,) = [span for span in found if span.name == "chunk"]
    assert chunk.attributes == {"partition": "t-events-0", "records": size, "end": size}


def test_sending_belongs_to_the_trace_of_the_chunk_and_ends_with_the_answer(
    spans: InMemorySpanExporter,
) -> None:
    trace = trace_with(tracing_to(spans))

    async def run() -> None:
        outbox = Outbox(FakeProducer(), lambda topic, reason: None, trace=trace)
        with trace("chunk"):
            outbox.put(records(b"1"))
        await outbox.wait(outbox.mark())

    asyncio.run(run())
    found = spans.get_finished_spans()
    assert [(span.name, parent_of(span, found)) for span in found] == [
        ("chunk", None),
        ("send", "chunk"),
    ]


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(TracingError, match="install the extra `otel`"):
        start_tracing()


def test_where_traces_are_off_nothing_is_made() -> None:
    assert no_trace("chunk", records=3) is no_trace("decode")
