"""Groups, limits and retries of notices, and whose they are."""

import pytest

from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND, Duration, Instant, after
from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.notices import (
    FIRST_RETRY,
    GROUP_INTERVAL,
    GROUP_WAIT,
    MAX_DETAILS,
    MAX_RETRY,
    SLOT_INTERVAL,
    EventDetail,
    EventKind,
    NoticeFilter,
    NoticeSum,
    Subscriptions,
    collecting_until,
    from_json,
    is_due,
    is_inside,
    next_slot,
    retry_delay,
    secret_parts,
    title_of,
    to_json,
)

NOW = Instant(1_000_000 * HOUR)


def detail(number, **other):
    return EventDetail(at=after(NOW, Duration(number)), text=f"event {number}", **other)


def test_a_sum_counts_all_events_and_tells_the_first():
    total = NoticeSum().with_events([detail(number, count=2) for number in range(3)])
    total = total.with_events([detail(number) for number in range(3, 10)])
    assert (total.count, total.first_at, total.last_at) == (13, NOW, after(NOW, Duration(9)))
    assert len(total.details) == MAX_DETAILS
    assert total.uncounted == 13 - 3 * 2 - 2
    assert from_json(to_json(total)) == total
    assert from_json(None) == NoticeSum()


def test_a_group_is_sent_after_a_moment_and_not_again_for_minutes():
    assert collecting_until(NOW, None) == after(NOW, GROUP_WAIT)
    assert collecting_until(NOW, after(NOW, Duration(-MINUTE))) == after(NOW, Duration(GROUP_INTERVAL - MINUTE))
    assert collecting_until(NOW, after(NOW, Duration(-DAY))) == after(NOW, GROUP_WAIT)
    assert collecting_until(NOW, after(NOW, DAY)) == after(NOW, GROUP_WAIT)  # by a clock that was ahead


def test_what_is_due_far_ahead_was_written_by_a_wrong_clock():
    assert is_due(NOW, NOW)
    assert not is_due(after(NOW, MINUTE), NOW)
    assert is_due(after(NOW, DAY), NOW)
    assert not is_due(None, NOW)


def test_the_rate_of_a_target_permits_a_burst_and_then_one_notice_in_six_seconds():
    slot, sent, now = Instant(0), [], NOW
    for _ in range(600):
        if (following := next_slot(slot, now)) is not None:
            slot = following
            sent.append(now)
        now = after(now, Duration(SECOND // 2))
    assert max(sum(at <= other < at + MINUTE for other in sent) for at in sent) <= 15
    assert len(sent) == 300 * SECOND // SLOT_INTERVAL + 4
    assert next_slot(after(NOW, DAY), NOW) is not None


def test_the_delay_of_a_target_that_fails_grows_and_takes_its_own_wish_into_account():
    delays = [retry_delay(failures, None, salt="t") for failures in range(1, 20)]
    assert FIRST_RETRY // 2 <= delays[0] <= FIRST_RETRY
    assert MAX_RETRY // 2 <= delays[-1] <= MAX_RETRY
    assert retry_delay(1, 60.0, salt="t") == MINUTE
    assert retry_delay(1, 1e9, salt="t") == MAX_RETRY


def test_filters_choose_by_kind_and_route():
    everything, shop = NoticeFilter(), NoticeFilter(routes=frozenset({"shop"}))
    dead = NoticeFilter(kinds=frozenset({EventKind.DEAD_DELIVERY}))
    wanted = Subscriptions(filters=(("a", (everything,)), ("b", (shop, dead)), ("c", (shop,))))
    assert wanted.targets(EventKind.STUCK_RUN, "shop") == ("a", "b", "c")
    assert wanted.targets(EventKind.STUCK_RUN, "api") == ("a",)
    assert wanted.targets(EventKind.DEAD_DELIVERY, "api") == ("a", "b")
    assert wanted.targets(EventKind.CERTIFICATE_ENDS, "") == ("a",)
    assert not Subscriptions(filters=(("b", (dead,)),)).wants(EventKind.STUCK_RUN)
    assert not Subscriptions()


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("https://oapi.dingtalk.com/robot/send?access_token=x", False),
        ("http://127.0.0.1/x", True),
        ("https://[fd00::1]/x", True),
        ("http://localhost/x", True),
        ("https://chat.corp.example/x", True),
        ("https://chat.corp.example.evil.example/x", False),
        ("https://hooks.other.example:8443/x", True),
        ("https://hooks.other.example/x", False),
    ],
)
def test_a_host_is_inside_if_the_settings_say_so(url, inside):
    entries = [read_no_proxy_entry(text) for text in (".corp.example", "hooks.other.example:8443")]
    assert is_inside(url, entries) is inside


UUID = "0ca19c20-f040-494f-b3d2-1"
LETTERS_26 = "qwertzuiopasdfghjklyxcvbnm"


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        (
            "https://hooks.slack.com/services/T012345678/B0123456789/AbCdEfGh12345678",
            {"T012345678", "B0123456789", "AbCdEfGh12345678"},
        ),
        (f"https://open.feishu.cn/open-apis/bot/v2/hook/{UUID}", {UUID}),
        (f"https://oapi.dingtalk.com/robot/send?access_token={'a1' * 32}", {"a1" * 32}),
        (
            f"https://oapi.dingtalk.com/robot/send?access_token={'a1' * 32}&timestamp=1700000000000&sign=q%2BzA4%3D",
            {"a1" * 32, "q%2BzA4%3D", "q+zA4="},
        ),
        (f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={UUID}", {UUID}),
        (
            "https://discord.example/api/webhooks/123456789012345678/aB-cD_eFgH",
            {"123456789012345678", "aB-cD_eFgH"},
        ),
        (f"https://n8n.example/webhook/{UUID}", {UUID}),
        (f"https://n8n.example/webhook-test/{UUID}/", {UUID}),
        (f"https://mattermost.example/hooks/{LETTERS_26}", {LETTERS_26}),
        (f"https://mattermost.example/hooks/{LETTERS_26}?", {LETTERS_26}),
        ("https://host.example/hook/SecretKeyAbc?wait=true", {"SecretKeyAbc"}),
        ("https://host.example/hook?Secret1Key", {"Secret1Key"}),
        ("https://host.example/hook/abc%2B12345678", {"abc%2B12345678", "abc+12345678"}),
        ("https://host.example/send?key=abc%2B12345678", {"abc%2B12345678", "abc+12345678"}),
        ("https://n8n.example/webhook/reports", set()),
        ("https://n8n.example/webhook/reports/", set()),
        ("https://n8n.example/webhook/Reports?channel=builds&wait=true&on=2026-01-02", set()),
        ("https://n8n.example/webhook/test%20reports?topic=failed%20tests", set()),
        ("https://n8n.example", set()),
    ],
)
def test_what_looks_like_a_key_in_the_url_of_a_webhook_is_secret_and_plain_words_are_not(url, keys):
    assert set(secret_parts(url)) == keys


def test_titles_count():
    assert title_of(EventKind.DEAD_DELIVERY, "shop", 1) == "bridge: 1 report given up (route shop)"
    assert title_of(EventKind.CERTIFICATE_ENDS, "", 2) == "bridge: 2 certificates end"
