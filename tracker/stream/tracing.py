"""Traces of chunks by OpenTelemetry, from the records to the lists; off by default.

A chunk is a trace: `chunk` with its parts `decode`, `load`, `state`, `search`, `rank`, `encode` and
`send`, which ends when the broker has the lists. Where they go is set by OpenTelemetry's own
variables, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tracker.explained import Explained

Trace = Callable[..., AbstractContextManager[Any]]
"""Opens a span by its name, with attributes by keyword; it ends with the block."""

SERVICE = "interest-tracker"

_NOTHING: AbstractContextManager[Any] = nullcontext()


class TracingError(Explained):
    """Traces are asked for, and OpenTelemetry is not installed."""


def no_trace(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Open no span."""
    return _NOTHING


def start_tracing() -> Trace:
    """Send spans by OTLP over HTTP, in the background; return what opens them.

    Raises:
        TracingError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            f"TRACKER_TRACING is on, and OpenTelemetry is not there ({error.name}): install the"
            " extra `otel`, or set TRACKER_TRACING=off"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return trace_with(provider)


def trace_with(provider: Any) -> Trace:
    """Return what opens spans of a tracer provider."""
    tracer = provider.get_tracer(SERVICE)

    def trace(name: str, **attributes: Any) -> AbstractContextManager[Any]:
        span: AbstractContextManager[Any] = tracer.start_as_current_span(
            name, attributes=attributes
        )
        return span

    return trace
