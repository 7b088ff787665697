import pytest

from bridge.domain.callers import hash_token

HOST = '[server]\nhost = "127.0.0.1"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
BEHIND_TLS = {"BRIDGE_SERVER__BEHIND_TLS_PROXY": "true"}
CI = '[[callers.tokens]]\nname = "ci"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[callers]\nauth = "open"\n',
            (
                "callers.auth: is open, so every client that reaches server.host could upload. "
                'Use "token", set server.host = "127.0.0.1", or set callers.allow_open = true.'
            ),
        ),
        (
            HOST,
            (
                'callers.tokens: is required with auth = "token". '
                "Add a [[callers.tokens]] table with name and token, or set BRIDGE_CALLERS__TOKENS."
            ),
        ),
        (HOST + "[callers]\nauth = []\n", 'callers.auth: is empty. Use "token", or "open" on loopback.'),
        (
            CI,
            (
                "callers.tokens[0].token: is missing. "
                "Set it here, in token_file, or in BRIDGE_CALLERS__TOKENS__CI__TOKEN, or set hash."
            ),
        ),
        (
            '[[callers.tokens]]\ntoken = "abc"\n',
            "callers.tokens[0].name: is missing. Give the caller a name, which is shown with its uploads.",
        ),
        *(
            (
                f'[[callers.tokens]]\ntoken = "abc"\nname = "{name}"\n',
                "callers.tokens[0].name: is too long or not printable. Use at most 64 printable characters.",
            )
            for name in ("c" * 65, "c\\u0000i")
        ),
        (
            CI + 'token = "a"\n' + CI + 'token = "b"\n',
            "callers.tokens[1].name: is also the name of callers.tokens[0]. Use unique names.",
        ),
        (
            CI + f'token = "a"\nhash = "{hash_token("a")}"\n',
            "callers.tokens[0].hash: is set, and token too. Keep one of the two.",
        ),
        (
            CI + 'hash = "md5:abc"\n',
            "callers.tokens[0].hash: is not sha256: and 64 hex digits. Create it with bridge hash-token.",
        ),
        (
            CI + 'token = "a"\nroutes = ["shopp"]\n',
            "callers.tokens[0].routes[0]: is not the name of a route. Did you mean shop?",
        ),
        (
            CI + 'token = "a"\nroutes = ["billing"]\n',
            "callers.tokens[0].routes[0]: is not the name of a route. Use the name of a [[routes]] table.",
        ),
        (
            CI + 'token = "a"\nscopes = []\n',
            'callers.tokens[0].scopes: is empty, so the caller may do nothing. Use ["upload"].',
        ),
    ],
)
def test_an_oversight_is_reported_with_cause_and_remedy(problems_of, text, problem):
    assert problems_of(text + ROUTE, BEHIND_TLS) == [problem]


KEY = '[callers]\nauth = "aksk"\n[[callers.keys]]\nname = "sdk"\n'
IAM = '[callers]\nauth = "iam"\n[codearts]\niam_endpoint = "https://iam.example"\n'
OTHER_PROJECT = '[[routes]]\nname = "other"\nproject_token = "t-654321"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[callers]\nauth = "aksk"\n',
            (
                'callers.keys: is required with auth = "aksk". '
                "Add a [[callers.keys]] table with name, access_key and secret_key."
            ),
        ),
        (
            KEY + 'secret_key = "s"\n',
            (
                "callers.keys[0].access_key: is missing. "
                "Set it here, in access_key_file, or in BRIDGE_CALLERS__KEYS__SDK__ACCESS_KEY."
            ),
        ),
        (
            KEY + 'access_key = "a"\n',
            (
                "callers.keys[0].secret_key: is missing. "
                "Set it here, in secret_key_file, or in BRIDGE_CALLERS__KEYS__SDK__SECRET_KEY."
            ),
        ),
        (
            KEY + 'access_key = "a,b"\nsecret_key = "s"\n',
            (
                "callers.keys[0].access_key: is not valid in a signature. "
                "Use letters, digits, hyphens and underscores, 128 at most."
            ),
        ),
        (
            KEY
            + 'access_key = "a"\nsecret_key = "s"\n[[callers.keys]]\nname = "b"\naccess_key = "a"\nsecret_key = "t"\n',
            "callers.keys[1].access_key: is also the key of callers.keys[0]. Give each caller a separate key.",
        ),
        (
            KEY + 'access_key = "a"\nsecret_key = "s"\n[[callers.tokens]]\nname = "sdk"\ntoken = "t"\n',
            "callers.keys[0].name: is also the name of callers.tokens[0]. Use unique names.",
        ),
        (
            CI.replace("ci", "project:ci") + 'token = "a"\n',
            "callers.tokens[0].name: begins with project:, which stands for callers with a project_token. Rename it.",
        ),
        (
            CI.replace("ci", "iam:ci") + 'token = "a"\n',
            "callers.tokens[0].name: begins with iam:, which stands for IAM users. Rename it.",
        ),
        (
            IAM,
            (
                "codearts.domain: is missing, so users of every account of Huawei Cloud could upload. "
                "Set it to the account whose users may upload."
            ),
        ),
        (
            '[callers]\nauth = "iam"\n[codearts]\ndomain = "firm"\n',
            'codearts.iam_endpoint: is required with callers.auth = "iam". Set it, or codearts.region.',
        ),
        (
            IAM + 'domain = "firm"\n' + OTHER_PROJECT,
            (
                "callers.users: is required with more than one project_token. "
                'Add a [[callers.users]] table with name = "*" and the routes that IAM users may use.'
            ),
        ),
        (
            IAM + 'domain = "firm"\n[[callers.users]]\nname = "*"\n' + OTHER_PROJECT,
            (
                "callers.users[0].routes: is required with more than one project_token. "
                "List the routes that the caller may use."
            ),
        ),
        (
            CI + 'token = "a"\n' + OTHER_PROJECT,
            (
                "callers.tokens[0].routes: is required with more than one project_token. "
                "List the routes that the caller may use."
            ),
        ),
    ],
)
def test_the_same_rules_apply_to_keys_and_iam_users(problems_of, text, problem):
    assert problems_of(text + ROUTE, BEHIND_TLS) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        CI + 'token = "a"\nroutes = ["shop", "other"]\n' + OTHER_PROJECT,
        CI + 'token = "a"\n' + OTHER_PROJECT.replace("t-654321", "t-123456"),
        IAM + 'domain = "firm"\n',
    ],
    ids=["all are named", "two routes into one project", "IAM users of one account into one project"],
)
def test_callers_that_are_bound_to_what_they_may_reach_are_taken(loads, text):
    assert loads(text + ROUTE, BEHIND_TLS).routes


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_open_callers_are_taken_on_loopback(loads, host):
    settings = loads(f'[server]\nhost = "{host}"\n[callers]\nauth = "open"\n{ROUTE}')
    assert (settings.server.host, settings.callers.auth) == (host, ("open",))


def test_callers_may_be_open_on_other_addresses_if_allow_open_is_true(loads):
    settings = loads(f'[callers]\nauth = "open"\nallow_open = true\n{ROUTE}')
    assert (settings.server.host, settings.callers.auth) == ("0.0.0.0", ("open",))


def test_a_token_and_its_hash_have_one_digest(loads):
    for secret in ('token = "canary-1"\n', f'hash = "{hash_token("canary-1")}"\n'):
        (token,) = loads(CI + secret + ROUTE, BEHIND_TLS).callers.tokens
        assert token.digest == hash_token("canary-1")


@pytest.mark.parametrize(
    ("secret", "name"), [('token = "canary-1"\n', "token"), (f'hash = "{hash_token("canary-1")}"\n', "hash")]
)
def test_one_token_for_two_callers_is_reported(problems_of, secret, name):
    text = CI + 'token = "canary-1"\n' + CI.replace("ci", "other") + secret
    assert problems_of(text + ROUTE, BEHIND_TLS) == [
        f"callers.tokens[1].{name}: is also the token of callers.tokens[0]. Give each caller a separate token."
    ]
