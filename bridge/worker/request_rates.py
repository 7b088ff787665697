"""The rates of CodeArts' APIs, as this gateway uses them: kept in the ledger, so that all gateways share them."""

from collections import Counter
from collections.abc import Mapping

import structlog

from bridge.domain.instants import Instant
from bridge.domain.outcomes import Throttled
from bridge.domain.request_rate import Api, RequestRate, corrected
from bridge.store.engine.base import Database
from bridge.store.request_rates import RateGrant, RateUse, ThrottledCall, read_rates, use_rates
from bridge.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


PLENTIFUL_PER_MINUTE = 100_000
"""From so many permitted calls on, each build is polled at its own interval: a choice would only delay it."""


class RequestRates:
    """The rates of one account; `highest` is `polling.requests_per_minute`.

    Answered calls are counted in memory and written with the next use of the API, which saves a write for each.
    """

    def __init__(self, database: Database, account: str, highest: float, metrics: Metrics | None = None) -> None:
        self._database = database
        self._account = account
        self._metrics = metrics
        self.highest = highest
        self.known: dict[Api, RequestRate] = {}
        self._answered: Counter[Api] = Counter()
        self._sent_at: dict[Api, Instant] = {}

    @property
    def are_plentiful(self) -> bool:
        """Return whether the settings permit so many calls that none has to be saved."""
        return self.highest >= PLENTIFUL_PER_MINUTE

    def rate(self, api: Api, now: Instant) -> RequestRate:
        """Return the rate as this gateway saw it last, without times that only a wrong clock can have written.

        `now` is the ledger's time that the caller compares with: a slot of a wrong clock is free then, not later.
        """
        return corrected(self.known.get(api) or RequestRate(per_minute=self.highest), now, self.highest)

    async def refresh(self) -> Mapping[Api, RequestRate]:
        """Read the rates as all gateways have left them."""
        self.known = await self._database.read(read_rates, self._account)
        return self.known

    async def admit(self, api: Api) -> Instant | None:
        """Return None if a call may be made now, else when to ask again."""
        return (await self._use(api, asks=True)).turn

    async def take_slots(self, api: Api, count: int) -> tuple[Instant, ...]:
        """Take the next slots of an API and return their times."""
        return (await self._use(api, takes=count)).slots

    async def record(self, api: Api, outcome: object, sent_at: Instant) -> None:
        """Record the outcome of a call that was sent at `sent_at`."""
        if isinstance(outcome, Throttled):
            await self.record_throttled(api, sent_at, outcome.retry_after_seconds)
        else:
            self._answered[api] += 1
            self._sent_at[api] = sent_at

    async def record_throttled(self, api: Api, sent_at: Instant, retry_after_seconds: float | None) -> None:
        """Slow down the calls of all gateways, because CodeArts throttled one."""
        before = self.rate(api, self._database.now())
        call = ThrottledCall(sent_at=sent_at, retry_after_seconds=retry_after_seconds)
        rate = (await self._use(api, throttled=call)).rate
        if self._metrics is not None:
            self._metrics.count_throttled(api)
        if rate.halved_at != before.halved_at:
            log.warning("calls_throttled", api=api.value, calls_per_minute=round(rate.per_minute, 1))

    async def record_refused(self, api: Api) -> None:
        """Record that the account may not make a call, so that no gateway makes it for an hour."""
        rate = (await self._use(api, refused=True)).rate
        log.warning("list_not_available", api=api.value, until=rate.refused_until)

    async def _use(
        self,
        api: Api,
        *,
        throttled: ThrottledCall | None = None,
        refused: bool = False,
        takes: int = 0,
        asks: bool = False,
    ) -> RateGrant:
        answered = self._answered.pop(api, 0)
        use = RateUse(
            account=self._account,
            api=api,
            highest=self.highest,
            answered=answered,
            sent_at=self._sent_at.get(api),
            throttled=throttled,
            refused=refused,
            takes=takes,
            asks=asks,
        )
        grant = await self._database.write(use_rates, use)
        self.known[api] = grant.rate
        return grant
