import pytest

from bridge.settings import diff
from tests.unit.settings.conftest import LOOPBACK, ROUTE

TOKEN = '[[callers.tokens]]\nname = "{}"\ntoken = "{}"\n'
CI = TOKEN.format("ci", "canary-1")
WEB = '[[routes]]\nname = "web"\nproject_token = "tok-shop"\nbranch = "main"\n'


def base(tables=""):
    return LOOPBACK + tables + ROUTE


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (base(), base(), {}),
        (base(), base('[polling]\ngrace_period = "1m"\n'), {"polling.grace_period": "10s → 1m"}),
        (base(), base('[store]\nmin_free_space = "2 GiB"\n'), {"store.min_free_space": "1 GiB → 2 GiB"}),
        (base(CI), base(TOKEN.format("ci", "canary-2")), {"callers.tokens.ci.token": "changed"}),
        (base(CI), base(CI + TOKEN.format("new", "canary-2")), {"callers.tokens[]": "['ci'] → ['ci', 'new']"}),
        (base(CI), base(), {"callers.tokens[]": "['ci'] → []"}),
        (base(), base().replace("tok-shop", "canary-3"), {"routes.shop.project_token": "changed"}),
        (base(WEB), base() + WEB, {"routes[]": "['web', 'shop'] → ['shop', 'web']"}),
        (base(WEB), base(WEB.replace("main", "dev")), {"routes.web.branch": "['main'] → ['dev']"}),
        (
            base('[outbound]\nhttp_proxy = "http://u:canary-4@p:1"\n[testnod]\nstorage_hosts = ["s"]\n'),
            base('[outbound]\nhttp_proxy = "http://u:canary-5@p:1"\n[testnod]\nstorage_hosts = ["s"]\n'),
            {"outbound.http_proxy": "changed"},
        ),
        (
            base('[store]\nurl = "postgresql://u:canary-6@h/d"\n'),
            base('[store]\nurl = "postgresql://u:canary-7@h/d"\n'),
            {"store.url": "changed"},
        ),
    ],
)
def test_what_differs_is_said_by_key_and_no_secret_is_shown(loads, before, after, said):
    told = diff(loads(before), loads(after))
    assert told == said
    assert "canary" not in repr(told)
