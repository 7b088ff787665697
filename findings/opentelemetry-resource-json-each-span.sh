#!/usr/bin/env bash
# opentelemetry-sdk 1.45.2 with opentelemetry-exporter-otlp-proto-common 1.45.2.
#
# A batch of 512 spans of one process is encoded for OTLP. All of them refer to the same Resource, which cannot change.
#
# Expected: what belongs to the process is read once for a batch. The format has it once, too: ResourceSpans.resource.
# Seen: the encoder groups spans in a dict by their Resource, whose hash is not kept: `Resource.__hash__` formats all of
#       its attributes as JSON, 513 times for 512 spans. That is a quarter of what encoding a span takes, and it grows
#       with OTEL_RESOURCE_ATTRIBUTES. A subclass that keeps the hash avoids it.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-common==1.45.2
"$folder/venv/bin/python" - <<'PY'
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk import resources
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class KeepsHash(Resource):
    def __init__(self, attributes):
        super().__init__(attributes)
        self._hash = super().__hash__()

    def __hash__(self):
        return self._hash


def json_texts(resource):
    """Return how often the encoder formats JSON for a batch, and how often the encoded batch has a resource."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for _ in range(512):
        provider.get_tracer("a").start_span("b").end()
    dumps, calls = resources.dumps, []
    resources.dumps = lambda *given, **named: calls.append(1) or dumps(*given, **named)
    encoded = encode_spans(kept.get_finished_spans())
    resources.dumps = dumps
    return len(calls), len(encoded.resource_spans)


seen = json_texts(Resource({"service.name": "a"})), json_texts(KeepsHash({"service.name": "a"}))
print(seen)
assert seen == ((513, 1), (0, 1)), f"changed: {seen}"
print("as described: JSON is formatted for each span, for one resource")
PY
