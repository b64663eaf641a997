"""Spans for the stages of a request, where `tracing_config` of the Serve config is on.

Serve makes the spans around them: of each request, each call through a handle and each replica.
Without tracing, nothing here runs.
"""

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class StageSpans(Protocol):
    """Records that a stage took so many seconds and ended now, or `ago_s` seconds ago."""

    def __call__(self, stage: str, seconds: float, *, ago_s: float = 0.0) -> None: ...


def stage_spans(provider: object = None) -> StageSpans | None:
    """None if Serve has not switched tracing on in this process; `provider` replaces that of
    OpenTelemetry."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = provider or trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return None
    tracer = provider.get_tracer("raylens")

    def record(stage: str, seconds: float, *, ago_s: float = 0.0) -> None:
        # Serve leaves the context empty for a request that it does not sample.
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return
        end = time.time_ns() - round(ago_s * 1e9)
        tracer.start_span(stage, start_time=end - round(seconds * 1e9)).end(end)

    return record


def otlp() -> "list[SpanProcessor]":
    """For `tracing_config.exporter_import_path`: sends spans by OTLP over HTTP to where
    OTEL_EXPORTER_OTLP_ENDPOINT says. Needs the extra `otlp`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]
