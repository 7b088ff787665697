"""Logging: each event is one line on stderr, JSON or (on a terminal) colored text, with secrets redacted.

The standard library's loggers (aiohttp, asyncio) use the same format.
"""

import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import field
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridge import __version__
from bridge.telemetry.instance import new_instance
from bridge.telemetry.redaction import Redactor
from bridge.telemetry.traces import trace_id
from bridge.values import dataclass

# aiohttp.access: the bridge logs uploads itself; botocore logs keys; Alembic logs its own set-up.
QUIET_LOGGERS = ("aiohttp.access", "botocore", "aiobotocore", "alembic")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}

_METHOD_LEVELS = {"exception": "error", "warn": "warning"}

_redactor = Redactor()
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def redact_values(secrets: Iterable[str]) -> None:
    """Register secrets: from now on they are replaced wherever they occur in a line."""
    _redactor.register(secrets)


def redact_text(text: str) -> str:
    """Return a text with secrets redacted and control characters escaped."""
    return _redactor.text(text)


def redact(event: EventDict) -> EventDict:
    """Return an event with every key and value redacted."""
    return {_redactor.text(key): _redactor.value(key, value) for key, value in event.items()}


@dataclass(slots=True)
class _Output:
    """Where lines go and how they look; a reload changes format and level of the loggers that exist."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    level: int = logging.INFO
    as_text: Processor | None = None  # None: JSON
    identity: dict[str, str] = field(default_factory=dict)  # in every line


_output = _Output()


def set_up(*, level: str = "info", stream: TextIO | None = None, instance: str = "") -> None:
    """Send all logging of this process to `stream` (None: stderr), from `level` on; may be called again.

    `instance` is the name of the gateway in every line.
    """
    _output.stream = stream if stream is not None else sys.stderr
    _output.identity = {"version": __version__, "instance": instance or new_instance()}
    # The bridge's loggers bypass the standard library, whose records would double the cost of a line in an upload.
    structlog.configure(
        processors=[_require_level, structlog.contextvars.merge_contextvars, _complete, _render],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        logger_factory=structlog.WriteLoggerFactory(_output.stream),
        cache_logger_on_first_use=stream is None,  # a test may pass another stream next time
    )
    _configure_standard_library(_output.stream)
    choose(level=level)


def choose(*, level: str, style: str = "auto") -> None:
    """Write lines from `level` on from now on; `style` is `[log] format`: auto, json or console."""
    _output.level = logging.getLevelNamesMapping()[level.upper()]
    is_text = style == "console" or (style == "auto" and _output.stream.isatty())
    _output.as_text = (
        structlog.dev.ConsoleRenderer(colors=_output.stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if is_text
        else None
    )
    logging.getLogger().setLevel(_output.level)


def _require_level(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if LEVELS.get(method, logging.CRITICAL) < _output.level:
        raise structlog.DropEvent
    return event


def _complete(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add level, time, exception, trace and identity: one call, because each line of an upload passes here."""
    event["level"] = _METHOD_LEVELS.get(method, method)
    event["at"] = datetime.now(UTC).isoformat().removesuffix("+00:00") + "Z"
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    if "trace_id" not in event and (current := trace_id()) is not None:
        event["trace_id"] = current
    event.update(_output.identity)
    return event


def _configure_standard_library(out: TextIO) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # The root logger has the level.
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.contextvars.merge_contextvars,
                _complete,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _render(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Return one line; only if JSON may contain a secret are its values redacted one by one."""
    if _output.as_text is not None:
        return str(_output.as_text(logger, method, redact(event)))
    line = _encode(event)
    return line if _redactor.is_clean(line) else _encode(redact(event))
