"""The stages of a request are spans below its own, where it is sampled; otherwise nothing is."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from deployments.items import PathItem, TextItem
from deployments.tracing import otlp, stage_spans
from tests.conftest import Jpeg
from tests.fakes import TEXT, FakeModel, service
from tests.service.requests import embed


def collector(sampler: Sampler) -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, kept = TracerProvider(sampler=sampler), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return provider, kept


async def traced(provider: TracerProvider, folder: Path) -> None:
    opened = service(FakeModel(text=TEXT), roots=[folder], trace=stage_spans(provider))
    with provider.get_tracer("test").start_as_current_span("request"):
        await embed(opened, [PathItem("a.jpg"), PathItem("b.jpg"), TextItem("a cat")])


@pytest.fixture
def folder(tmp_path: Path, jpeg: Jpeg) -> Path:
    for number, name in enumerate("ab"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    return tmp_path


async def test_each_stage_is_a_span_below_its_request(folder: Path) -> None:
    provider, kept = collector(ALWAYS_ON)
    await traced(provider, folder)
    *stages, request = kept.get_finished_spans()
    names = sorted(span.name for span in stages)
    assert names == ["decode", "decode", "fetch", "fetch", "tokenise"]
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert request.start_time is not None
        assert span.start_time is not None
        assert span.end_time is not None
        # The clocks that time and date a stage differ by less than this.
        assert span.end_time >= span.start_time >= request.start_time - 1_000_000


async def test_a_request_that_is_not_sampled_leaves_no_spans(folder: Path) -> None:
    provider, kept = collector(ALWAYS_OFF)
    await traced(provider, folder)
    recording, other = collector(ALWAYS_ON)
    opened = service(FakeModel(text=TEXT), roots=[folder], trace=stage_spans(recording))
    await embed(opened, [PathItem("a.jpg")])  # with no span around it
    assert kept.get_finished_spans() == other.get_finished_spans() == ()


def test_a_span_may_have_ended_before_now() -> None:
    provider, kept = collector(ALWAYS_ON)
    record = stage_spans(provider)
    assert record is not None
    with provider.get_tracer("test").start_as_current_span("request"):
        record("queue", 2.0, ago_s=3.0)
        record("model", 3.0)
    queue, model, _ = kept.get_finished_spans()
    assert queue.end_time is not None
    assert queue.start_time is not None
    assert queue.end_time - queue.start_time == 2_000_000_000
    assert queue.end_time == pytest.approx(model.start_time, abs=50_000_000)


def test_without_tracing_there_is_nothing_to_call() -> None:
    assert stage_spans() is None


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        provider = TracerProvider()
        for processor in otlp():
            provider.add_span_processor(processor)
        record = stage_spans(provider)
        assert record is not None
        with provider.get_tracer("test").start_as_current_span("request"):
            record("decode", 0.01)
        provider.shutdown()
        server.shutdown()
    ((path, request),) = received
    (resource,) = request.resource_spans
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert path == "/v1/traces"
    assert sorted(span.name for span in spans) == ["decode", "request"]
