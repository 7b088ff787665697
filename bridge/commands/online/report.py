"""The findings as lines for people, and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from rich.text import Text

from bridge.commands.online.findings import Finding, FindingState
from bridge.domain.text_format import counted
from bridge.settings import Settings
from bridge.settings.summary import secret_values
from bridge.telemetry.redaction import Redactor

COLORS: Final = {FindingState.WORKS: "green", FindingState.WARNING: "yellow", FindingState.FAILED: "bold red"}
WIDTH: Final = max(map(len, FindingState))


def without_secrets(found: Sequence[Finding], settings: Settings) -> list[Finding]:
    """Return the findings without secrets of the settings, which an upstream may have repeated in its answer."""
    redactor = Redactor()
    redactor.register(secret_values(settings))
    return [replace(finding, text=redactor.text(finding.text)) for finding in found]


def line_of(finding: Finding) -> Text:
    """Return a finding in one line: the state, who was asked, what it means, and what to do."""
    name = f"{finding.upstream}, {finding.subject}" if finding.subject else finding.upstream
    sentence = f" {name}: {finding.text} {finding.remedy}".rstrip()
    return Text.assemble((f"{finding.state:<{WIDTH}}", COLORS[finding.state]), sentence)


def total_of(found: Sequence[Finding]) -> str:
    """Return a sentence with the number of findings of each state."""
    failed = sum(finding.state is FindingState.FAILED for finding in found)
    warned = sum(finding.state is FindingState.WARNING for finding in found)
    noun = counted(len(found), "question")
    if not failed and not warned:
        return f"{noun} asked, all is well."
    return f"{noun} asked: {failed} failed, {counted(warned, 'warning')}."


def as_json(found: Sequence[Finding]) -> list[dict[str, object]]:
    """Return the findings as `--json` prints them."""
    return [asdict(finding) for finding in found]
