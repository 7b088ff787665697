import pytest

from bridge.settings import secret_values


def test_every_secret_that_is_set_is_found_and_nothing_else(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[admin]\ntoken = ["canary-1", "canary-2"]\n[codearts]\ntoken = "canary-3"\n'
        '[[callers.tokens]]\nname = "ci"\ntoken = "canary-4"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\ntags = ["unit"]\n'
    )
    assert secret_values(settings) == {f"canary-{number}" for number in range(1, 6)}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:canary%2F1@db.example/bridge",
        "postgresql://bridge@/bridge?host=/run/postgresql&password=canary%2F1",
        "postgresql:///bridge?sslkey=key.pem&sslpassword=canary%2F1",
    ],
)
def test_the_password_of_the_ledger_is_a_secret(loads, url):
    settings = loads(
        f'[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[store]\nurl = "{url}"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\n'
    )
    assert secret_values(settings) == {"canary%2F1", "canary/1", "canary-5"}


def test_the_password_of_a_proxy_is_a_secret_alone_too(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[testnod]\nstorage_hosts = ["s3.example"]\n'
        '[outbound]\nhttp_proxy = "http://user:canary%2F1@proxy.example:3128"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\n'
    )
    proxy = "http://user:canary%2F1@proxy.example:3128"
    assert secret_values(settings) == {proxy, "canary%2F1", "canary/1", "canary-5"}
