"""The rules of `[routes.quality]`: somebody can be asked, about something, and is waited for.

It knows the settings only; what becomes of an answer stands in domain/quality.py.
"""

import re
from collections.abc import Iterator

from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings

_ID = re.compile(r"[0-9A-Za-z]{1,32}")  # "1 to 32 characters" (codearts-check-refresh-report)


def quality_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of every table that could never bring a report of CodeArts Check."""
    asked = False
    for index, route in enumerate(settings.routes):
        if (quality := route.quality) is None:
            continue
        asked = True
        key = f"routes[{index}].quality"
        if not quality.task_id and not quality.job_id:
            yield Complaint(f"{key}.task_id", "is missing.", "Name the task of CodeArts Check, or take the table out.")
        for name, value in (("task_id", quality.task_id), ("job_id", quality.job_id)):
            if value and not _ID.fullmatch(value):
                remedy = "Copy it from the address of its page in CodeArts Check."
                yield Complaint(f"{key}.{name}", "is no id of CodeArts Check: 1 to 32 letters and digits.", remedy)
        if not quality.wait:
            yield Complaint(f"{key}.wait", "is nought, so Check would never be asked.", 'Write "10s" or more.')
    if asked and not settings.codearts.check_endpoint:
        remedy = "Write it like https://codearts-check.cn-north-4.myhuaweicloud.com."
        yield Complaint("codearts.check_endpoint", "is missing, and a route has a quality table.", remedy)
