"""A fault in what makes the events of notices stops no write: uploads and deliveries go on without them."""

from collections.abc import Callable

import structlog

from bridge.domain.notices import NoticeEvent

log = structlog.get_logger(__name__)


def events_or_none(find: Callable[[], tuple[NoticeEvent, ...]]) -> tuple[NoticeEvent, ...]:
    """Return the events that `find` returns; if it raises, log that and return none."""
    try:
        return find()
    except Exception:
        log.exception("notice_event_failed")
        return ()
