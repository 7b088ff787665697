"""Sets logging up: one event is one line on stderr, JSON for machines, coloured text on a terminal, without secrets.

It must not know what is logged. The standard library's loggers (aiohttp, asyncio) go the same way as ours.
"""

import json
import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridge.telemetry.redaction import Redactor

# One line a request is ours to write; botocore logs keys; Alembic tells how it works, not what it did.
QUIET_LOGGERS = ("aiohttp.access", "botocore", "aiobotocore", "alembic")

_redactor = Redactor()
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def redact_values(secrets: Iterable[str]) -> None:
    """Register secrets of the settings: from now on they are replaced in every line, wherever they occur."""
    _redactor.register(secrets)


def redact(event: EventDict) -> EventDict:
    """Clean every value of an event."""
    return {_redactor.text(key): _redactor.value(key, value) for key, value in event.items()}


def set_up(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (stderr when None), from `level` on. Safe to call again."""
    out = stream if stream is not None else sys.stderr
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    last: list[Processor] = [_for_people() if out.isatty() else _as_json]
    # Ours are written directly: the standard library's records would double what a line costs in the path of uploads.
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=stream is None,  # a stream of one's own may be another one next time
    )
    _adopt_standard_library(level, out, first, last)


def _adopt_standard_library(level: str, out: TextIO, first: list[Processor], last: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *first],
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
    """Write one line without secrets: only one that may hold some is cleaned, value by value."""
    line = _encode(event)
    return line if _redactor.passes(line) else _encode(redact(event))


def _for_people() -> Processor:
    coloured = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return lambda logger, method, event: coloured(logger, method, redact(event))
