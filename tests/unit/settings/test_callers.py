import pytest

from bridge.domain.callers import hash_token

HOST = '[server]\nhost = "127.0.0.1"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
CI = '[[callers.tokens]]\nname = "ci"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[callers]\nauth = "open"\n',
            (
                "callers.auth: is open, and anybody who reaches server.host could upload. "
                'Use "token", let server.host be 127.0.0.1, or set callers.allow_open = true.'
            ),
        ),
        (
            HOST,
            (
                'callers.tokens: is missing, and auth is "token". '
                "Add a [[callers.tokens]] table with name and token, or set BRIDGE_CALLERS__TOKENS."
            ),
        ),
        (HOST + "[callers]\nauth = []\n", 'callers.auth: is empty. Write "token", or "open" on loopback.'),
        (
            CI,
            (
                "callers.tokens[0].token: is missing. "
                "Set it here, in token_file, or in BRIDGE_CALLERS__TOKENS__CI__TOKEN, or give its hash."
            ),
        ),
        (
            '[[callers.tokens]]\ntoken = "abc"\n',
            "callers.tokens[0].name: is missing. Give the caller a name: it stands beside what it uploads.",
        ),
        (
            CI + 'token = "a"\n' + CI + 'token = "b"\n',
            "callers.tokens[1].name: is the name of callers.tokens[0] too. Give each a name of its own.",
        ),
        (
            CI + f'token = "a"\nhash = "{hash_token("a")}"\n',
            "callers.tokens[0].hash: is set, and token too. Keep one of the two.",
        ),
        (
            CI + 'hash = "md5:abc"\n',
            "callers.tokens[0].hash: is not sha256: and 64 hex digits. Make one with bridge hash-token.",
        ),
        (
            CI + 'token = "a"\nroutes = ["shopp"]\n',
            "callers.tokens[0].routes[0]: is the name of no route. Did you mean shop?",
        ),
        (
            CI + 'token = "a"\nscopes = []\n',
            'callers.tokens[0].scopes: is empty: the token could do nothing. Write ["upload"].',
        ),
    ],
)
def test_an_oversight_is_named_with_fault_and_remedy(complains, text, complaint):
    assert complains(text + ROUTE) == [complaint]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_open_callers_are_taken_on_loopback(loads, host):
    settings = loads(f'[server]\nhost = "{host}"\n[callers]\nauth = "open"\n{ROUTE}')
    assert (settings.server.host, settings.callers.auth) == (host, ("open",))


def test_open_callers_are_taken_elsewhere_where_that_is_said(loads):
    settings = loads(f'[callers]\nauth = "open"\nallow_open = true\n{ROUTE}')
    assert (settings.server.host, settings.callers.auth) == ("0.0.0.0", ("open",))


def test_a_token_and_its_hash_have_one_digest(loads):
    hashed = CI.replace("ci", "other") + f'hash = "{hash_token("canary-1")}"\n'
    one, other = loads(CI + 'token = "canary-1"\n' + hashed + ROUTE).callers.tokens
    assert one.digest == other.digest == hash_token("canary-1")
