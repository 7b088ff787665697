"""What an upstream's answer to a question shows of the settings, and what to do."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from bridge.domain import outcomes
from bridge.domain.instants import MINUTE, SECOND
from bridge.domain.text_format import span
from bridge.protocols.iam import Token, TokenOutcome, ValidationOutcome, ValidToken
from bridge.values import dataclass

CLOCK_WARNING_US: Final = 30 * SECOND  # Date headers are exact to a second, and an answer may take some
CLOCK_FAILED_US: Final = 5 * MINUTE  # TestNod's presigned URLs are valid for so long; Huawei accepts 15 minutes

NETWORK: Final = "Check the address, DNS, the firewall and [outbound]."
AGAIN: Final = "Try again. If it stays, check the address in the settings and whether the service works."


class FindingState(StrEnum):
    """Whether the gateway can work with an upstream as it is configured."""

    WORKS = "works"
    WARNING = "warning"  # the gateway runs, with less than it could have
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of one question. `remedy` is empty if there is nothing to do."""

    upstream: str
    subject: str  # what of it was asked, such as a route; may be empty
    state: FindingState
    text: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An upstream and what of it is asked; makes findings of it."""

    upstream: str
    subject: str = ""

    def works(self, text: str) -> Finding:
        return self._found(FindingState.WORKS, text, "")

    def warns(self, text: str, remedy: str) -> Finding:
        return self._found(FindingState.WARNING, text, remedy)

    def fails(self, text: str, remedy: str) -> Finding:
        return self._found(FindingState.FAILED, text, remedy)

    def _found(self, state: FindingState, text: str, remedy: str) -> Finding:
        return Finding(upstream=self.upstream, subject=self.subject, state=state, text=text, remedy=remedy)

    def no_answer(self, outcome: outcomes.NotSent | outcomes.OutcomeUnknown) -> Finding:
        return self.fails(_sentence(outcome.message), NETWORK if isinstance(outcome, outcomes.NotSent) else AGAIN)


def of_testnod(asked: Asked, outcome: outcomes.FinalizeOutcome) -> Finding:
    """Return what the finalize of a run that never exists shows of a route's project token."""
    match outcome:
        case outcomes.RunMissing() | outcomes.RunEmpty() | outcomes.RunStatus():
            return asked.works("The project token is accepted.")
        case outcomes.ProjectMissing(message=message):
            text = f"The project token is rejected: {_sentence(message)}"
            return asked.fails(text, "Copy the token of the project in TestNod to project_token.")
        case (
            outcomes.Rejected(status=status, message=message)
            | outcomes.UnrecognizedResponse(status=status, message=message)
        ):
            return asked.fails(f"It answered with HTTP {status}: {_sentence(message)}", "Check testnod.base_url.")
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return asked.no_answer(outcome)


def of_login(asked: Asked, outcome: TokenOutcome | outcomes.NotSent) -> Finding:
    """Return what a login at IAM shows of the bridge's user."""
    match outcome:
        case Token():
            return asked.works("The login is accepted, and a token was issued.")
        case outcomes.CredentialsRejected(message=message):
            remedy = "Check codearts.user, password, domain and project. Five failures lock a user for 15 minutes."
            return asked.fails(f"The login is rejected: {_sentence(message)}", remedy)
        case outcomes.Throttled():
            return asked.warns(f"It throttles: {_sentence(outcome.message)}", "Try again in a minute.")
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return asked.no_answer(outcome)


def of_validation(asked: Asked, outcome: ValidationOutcome | outcomes.NotSent) -> Finding:
    """Return what the validation of a token that never existed shows: tokens of callers can be validated."""
    match outcome:
        case ValidToken() | outcomes.CredentialsRejected():
            return asked.works("It validates tokens of callers.")
        case outcomes.Rejected(status=status):
            if status in (400, 403, 404):
                return asked.works("It validates tokens of callers.")
            return asked.fails(_sentence(outcome.message), AGAIN)
        case outcomes.Throttled():
            return asked.warns(f"It throttles: {_sentence(outcome.message)}", "Try again in a minute.")
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return asked.no_answer(outcome)


def of_codearts(asked: Asked, outcome: outcomes.RecordListOutcome | outcomes.JobListOutcome) -> Finding:
    """Return what a list call shows of CodeArts Build and of the bridge's credentials there."""
    match outcome:
        case outcomes.JobsListed(total=total, jobs=jobs):
            return asked.works(f"The credentials are accepted; it lists {len(jobs) if total is None else total} jobs.")
        case outcomes.BuildsListed() | outcomes.NoSuchBuild():
            return asked.works("The credentials are accepted; it lists builds.")
        case outcomes.Rejected(status=403, message=message):
            remedy = "Let the bridge's user view the project. Without lists, the bridge asks about each build."
            return asked.warns(f"It refuses the list: {_sentence(message)}", remedy)
    return _of_huawei(asked, outcome, "codearts.endpoint")


def of_check(asked: Asked, outcome: outcomes.CheckOutcome) -> Finding:
    """Return what the refresh of a report that never exists shows of CodeArts Check."""
    match outcome:
        case outcomes.CheckReportFetched() | outcomes.CheckReportPending():
            return asked.works("The credentials are accepted.")
        case outcomes.Rejected(status=400 | 422):  # there is no such report, as expected
            return asked.works("The credentials are accepted.")
        case outcomes.Rejected(status=403, message=message):
            remedy = "Let the bridge's user view the tasks of CodeArts Check."
            return asked.warns(f"It refuses the report: {_sentence(message)}", remedy)
    return _of_huawei(asked, outcome, "codearts.check_endpoint")


def _of_huawei(
    asked: Asked,
    outcome: outcomes.CodeArtsFailure,
    endpoint: str,
) -> Finding:
    match outcome:
        case outcomes.CredentialsRejected(message=message):
            remedy = "Check codearts.auth and the credentials it uses. Five failures lock a key for five minutes."
            return asked.fails(f"The credentials are rejected: {_sentence(message)}", remedy)
        case outcomes.Throttled(message=message):
            remedy = "The bridge slows down by itself. Others that use the same account share its limit."
            return asked.warns(f"It throttles: {_sentence(message)}", remedy)
        case outcomes.Rejected(status=status, message=message):
            return asked.fails(f"It answered with HTTP {status}: {_sentence(message)}", f"Check {endpoint}.")
        case outcomes.NoSuchBuild(message=message):
            return asked.works(_sentence(message))
        case outcomes.NotSent() | outcomes.OutcomeUnknown():
            return asked.no_answer(outcome)


def of_clocks(differences: Sequence[tuple[str, int]]) -> Finding:
    """Return what the Date headers of upstreams show of this machine's clock.

    `differences` are names of upstreams, and by how many microseconds their clocks are ahead.
    """
    asked = Asked(upstream="Clock")
    if not differences:
        return asked.warns("No upstream sent its time, so the clock could not be compared.", "Check it by other means.")
    name, worst = max(differences, key=lambda difference: abs(difference[1]))
    if abs(worst) <= CLOCK_WARNING_US:
        return asked.works(f"It differs by less than {span(CLOCK_WARNING_US)} from that of {_names(differences)}.")
    text = f"It is {span(abs(worst))} {'behind' if worst > 0 else 'ahead of'} that of {name}."
    remedy = "Set this machine's clock, for example with NTP. Signatures and URLs are valid for minutes only."
    return asked.fails(text, remedy) if abs(worst) >= CLOCK_FAILED_US else asked.warns(text, remedy)


def _names(differences: Sequence[tuple[str, int]]) -> str:
    *most, last = sorted({name for name, _ in differences})
    return f"{', '.join(most)} and {last}" if most else last


def _sentence(message: str) -> str:
    return message if message.endswith((".", "…", "!", "?")) else f"{message}."
