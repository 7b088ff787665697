"""Logging: each event is one line on stderr, JSON or (on a terminal) colored text, with secrets redacted.

The standard library's loggers (aiohttp, asyncio) use the same format.
"""

import json
import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridge.telemetry.redaction import Redactor

# aiohttp.access: the bridge logs uploads itself; botocore logs keys; Alembic logs its own set-up.
QUIET_LOGGERS = ("aiohttp.access", "botocore", "aiobotocore", "alembic")

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


def set_up(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (None: stderr), from `level` on; may be called again."""
    out = stream if stream is not None else sys.stderr
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    last: list[Processor] = [_as_text() if out.isatty() else _as_json]
    # The bridge's loggers bypass the standard library, whose records would double the cost of a line in an upload.
    structlog.configure(
        processors=[*common, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=stream is None,  # a test may pass another stream next time
    )
    _configure_standard_library(level, out, common, last)


def _configure_standard_library(level: str, out: TextIO, common: list[Processor], last: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return one line of JSON; only if it may contain a secret are its values redacted one by one."""
    line = _encode(event)
    return line if _redactor.is_clean(line) else _encode(redact(event))


def _as_text() -> Processor:
    render = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return lambda logger, method, event: render(logger, method, redact(event))
