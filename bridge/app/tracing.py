"""Switch traces on if the standard variables of OpenTelemetry name a collector and the extra `otel` is installed.

Variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. Without them nothing of
OpenTelemetry is imported.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import structlog

from bridge.domain.notices import secret_parts
from bridge.settings.summary import passwords_in
from bridge.telemetry.logs import redact_values

if TYPE_CHECKING:
    from bridge.telemetry.otel import Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = structlog.get_logger(__name__)


def open_tracing(instance: str, environ: Mapping[str, str] = os.environ) -> "Tracer | None":
    """Return a tracer that exports to the collector of the variables; None if there is none, or it cannot be used."""
    if not is_requested(environ):
        return None
    redact_values(_secrets(environ))
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning(
            "tracing_unavailable",
            reason=f"The bridge exports traces with http/protobuf only, not with {protocol}.",
            remedy=f"Set {PROTOCOLS[1]}=http/protobuf, and the endpoint of that protocol.",
        )
        return None
    try:
        from bridge.telemetry.otel import Tracer  # noqa: PLC0415 -- imported only if traces are requested
    except ImportError as error:
        remedy = 'Install the extra "otel" of the bridge, or unset OTEL_EXPORTER_OTLP_ENDPOINT.'
        log.warning("tracing_unavailable", reason=f"OpenTelemetry is not installed ({error.name}).", remedy=remedy)
        return None
    try:
        return Tracer(instance)
    except Exception as error:  # noqa: BLE001 -- whatever its variables are: reports are delivered without traces too
        remedy = "Check the variables whose names begin with OTEL_."
        log.warning("tracing_unavailable", reason=f"{type(error).__name__}: {error}", remedy=remedy)
        return None


def is_requested(environ: Mapping[str, str]) -> bool:
    """Return whether the variables name a collector and do not switch traces off."""
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return not is_disabled and "otlp" in exporters.split(",") and any(environ.get(name) for name in ENDPOINTS)


def _secrets(environ: Mapping[str, str]) -> set[str]:
    """Return what must not be shown of the variables: their headers, and keys and passwords in the endpoints."""
    found: set[str] = set()
    for name in HEADERS:
        text = environ.get(name, "")
        pairs = text.split(",")
        values = [pair.partition("=")[2] for pair in pairs]
        # "Bearer KEY" and "Basic KEY": the key is a secret alone, too.
        credentials = [unquote(value).split()[-1] for value in values if unquote(value).strip()]
        pieces = (text, *pairs, *values, *credentials)
        found |= {form.strip() for piece in pieces for form in (piece, unquote(piece))}
    for name in ENDPOINTS:
        url = environ.get(name, "")
        found |= set(passwords_in(url))
        with suppress(ValueError):  # the exporter reports it
            found |= set(secret_parts(url))
    return found - {""}
