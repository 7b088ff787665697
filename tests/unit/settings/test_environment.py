import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings import unused_variables
from bridge.settings.environment import overlay

BASE = '[server]\nhost = "127.0.0.1"\n'
ROUTE = '[[routes]]\nname = "shop.cn-1"\nproject_token = "from-file"\n'
OPEN = '[callers]\nauth = "open"\n'


def test_a_variable_wins_over_the_file(loads):
    settings = loads(
        BASE + OPEN + ROUTE,
        {
            "BRIDGE_SERVER__PORT": "9000",
            "BRIDGE_TESTNOD__BASE_URL": "http://localhost:1",
            "BRIDGE_TESTNOD__ALLOW_PRIVATE_STORAGE": "true",
            "BRIDGE_TESTNOD__STORAGE_HOSTS": "a.example, b.example",
            "BRIDGE_POLLING__GRACE_PERIOD": "3s",
            "BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN": "from-environment",
            "BRIDGE_ROUTES__SHOP_CN_1__BRANCH": "main,release/*",
            "OTHER": "x",
        },
    )
    assert settings.server.port == 9000
    assert settings.testnod.base_url == "http://localhost:1"
    assert settings.testnod.allow_private_storage
    assert settings.testnod.storage_hosts == ("a.example", "b.example")
    assert settings.polling.grace_period.total_seconds() == 3
    assert settings.routes[0].project_token.get_secret_value() == "from-environment"
    assert settings.routes[0].branch == ("main", "release/*")


def test_tokens_can_be_set_one_by_one_by_name(loads):
    text = BASE + ROUTE + '[[callers.tokens]]\nname = "ci"\n'
    settings = loads(text, {"BRIDGE_CALLERS__TOKENS__CI__TOKEN": "abcdef"})
    assert settings.callers.tokens[0].token.get_secret_value() == "abcdef"


def test_plain_tokens_can_be_set_as_a_list(loads):
    tokens = loads(BASE + ROUTE, {"BRIDGE_CALLERS__TOKENS": "abcdef,ghijkl"}).callers.tokens
    assert [(token.name, token.token.get_secret_value()) for token in tokens] == [
        ("token-1", "abcdef"),
        ("token-2", "ghijkl"),
    ]


def test_plain_strings_are_taken_among_the_tokens(loads):
    tokens = loads(BASE + '[callers]\ntokens = ["abcdef", {name = "ci", token = "ghijkl"}]\n' + ROUTE).callers.tokens
    assert [token.name for token in tokens] == ["token-1", "ci"]


def test_a_secret_file_in_the_environment_replaces_the_secret_of_the_file(loads, tmp_path):
    (tmp_path / "secret").write_text("from-secret-file\n")
    settings = loads(BASE + OPEN + ROUTE, {"BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN_FILE": str(tmp_path / "secret")})
    assert settings.routes[0].project_token.get_secret_value() == "from-secret-file"


def test_a_table_that_the_file_leaves_out_can_stand_in_the_environment_alone(loads):
    code_check = "BRIDGE_ROUTES__SHOP_CN_1__CODE_CHECK__"
    settings = loads(
        BASE + OPEN + ROUTE,
        {
            f"{code_check}TASK_ID": "t1",
            f"{code_check}MAX_MAJOR": "3",
            "BRIDGE_CODEARTS__CHECK_ENDPOINT": "https://check.test",
        },
    )
    assert settings.routes[0].code_check is not None
    assert (settings.routes[0].code_check.task_id, settings.routes[0].code_check.max_major) == ("t1", 3)


def test_a_variable_adds_no_table_that_the_file_does_not_have(loads):
    assert loads(BASE + OPEN + ROUTE, {"BRIDGE_SERVER__PORT": "1"}).routes[0].code_check is None


def test_a_variable_adds_the_named_table_that_it_sets(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n',
        {
            "BRIDGE_ROUTES__SHOP__PROJECT_TOKEN": "one",
            "BRIDGE_ROUTES__SHOP__BRANCH": "main,release/*",
            "BRIDGE_ROUTES__SHOP__CODE_CHECK__TASK_ID": "t1",
            "BRIDGE_ROUTES__WEB_APP__PROJECT_TOKEN": "one",
            "BRIDGE_ROUTES__WEB_APP__NAME": "Web app",
            "BRIDGE_CODEARTS__CHECK_ENDPOINT": "https://check.test",
            "BRIDGE_CALLERS__TOKENS__CI__TOKEN": "abcdef",
            "BRIDGE_CALLERS__KEYS__SDK__ACCESS_KEY": "AK",
            "BRIDGE_CALLERS__KEYS__SDK__SECRET_KEY": "SK",
        },
    )
    assert [(route.name, route.branch) for route in settings.routes] == [
        ("shop", ("main", "release/*")),
        ("Web app", ("*",)),
    ]
    assert settings.routes[0].code_check.task_id == "t1"
    assert [token.name for token in settings.callers.tokens] == ["ci"]
    assert [key.name for key in settings.callers.keys] == ["sdk"]


def test_added_tables_come_after_those_of_the_file_and_may_have_a_secret_file(loads, tmp_path):
    (tmp_path / "secret").write_text("from-secret-file\n")
    settings = loads(BASE + OPEN + ROUTE, {"BRIDGE_ROUTES__CART__PROJECT_TOKEN_FILE": str(tmp_path / "secret")})
    assert [route.name for route in settings.routes] == ["shop.cn-1", "cart"]
    assert settings.routes[1].project_token.get_secret_value() == "from-secret-file"


def test_an_added_table_obeys_the_rules_of_its_kind(problems_of):
    assert problems_of(BASE + OPEN, {"BRIDGE_ROUTES__SHOP__TAGS": "unit"}) == [
        (
            "routes[0].project_token: is missing. "
            "Set it here, in project_token_file, or in BRIDGE_ROUTES__SHOP__PROJECT_TOKEN."
        )
    ]


def test_one_table_where_a_list_belongs_is_the_only_problem(problems_of):
    found = problems_of(BASE + OPEN + '[routes]\nname = "shop"\n', {"BRIDGE_ROUTES__SHOP__PROJECT_TOKEN": "x"})
    assert "routes: is one table, although it may occur several times. Write [[routes]] for [routes]." in found


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"BRIDGE_POLLING__GRACE_PERIOD": "10"},
            (
                'BRIDGE_POLLING__GRACE_PERIOD: "10" is not a duration. '
                'Use a number and a unit, such as "5s". Units in order: d, h, m, s, ms.'
            ),
        ),
        ({"BRIDGE_SERVER__PORT": "x"}, "BRIDGE_SERVER__PORT: is not a whole number. Use a number, such as 8080."),
        (
            {"BRIDGE_SERVER__BEHIND_TLS_PROXY": "maybe"},
            "BRIDGE_SERVER__BEHIND_TLS_PROXY: is neither true nor false. Use true or false.",
        ),
        (
            {"BRIDGE_SERVER__TRUSTED_PROXIES": "10.0.0.1, lb"},
            (
                "BRIDGE_SERVER__TRUSTED_PROXIES[1]: is neither an address nor a network. "
                'Use an entry such as "10.0.0.0/8".'
            ),
        ),
        (
            {"BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN_FILE": "/absent"},
            (
                "BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN_FILE: cannot be read: No such file or directory. "
                "Correct the path, or the permissions of the file."
            ),
        ),
        (
            {"BRIDGE_ROUTES__SHOP_CN_1__TAGS": '["a", "b"]'},
            (
                "BRIDGE_ROUTES__SHOP_CN_1__TAGS: is written as a list of TOML or JSON. "
                "Separate the values by commas, as in a,b."
            ),
        ),
        (
            {"BRIDGE_STORE__SPOOL": '"data/spool"'},
            "BRIDGE_STORE__SPOOL: is in quotation marks, which would be part of the value. Remove them.",
        ),
    ],
)
def test_a_problem_of_a_value_names_the_variable_that_set_it(problems_of, environ, problem):
    assert problems_of(BASE + OPEN + ROUTE, environ) == [problem]


@pytest.mark.parametrize("value", ['[{"name": "ci", "token": "canary"}]', '["canary"]', '{"token": "canary"}'])
def test_a_list_of_tokens_in_json_is_rejected_and_not_shown(problems_of, value):
    assert problems_of(BASE + ROUTE, {"BRIDGE_CALLERS__TOKENS": value}) == [
        "BRIDGE_CALLERS__TOKENS: is written as a list of TOML or JSON. Separate the values by commas, as in a,b."
    ]


def test_a_glob_that_begins_with_a_bracket_is_no_list(loads):
    settings = loads(BASE + OPEN + ROUTE, {"BRIDGE_ROUTES__SHOP_CN_1__BRANCH": "[mr]*,main"})
    assert settings.routes[0].branch == ("[mr]*", "main")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"BRIDGE_SERVER__PROT": "8080"},
            "BRIDGE_SERVER__PROT: is not a setting. Did you mean BRIDGE_SERVER__PORT?",
        ),
        (
            {"BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKN": "x"},
            (
                "BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKN: is not a setting. "
                "Did you mean BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN?"
            ),
        ),
        (
            {"BRIDGE_Q__QQQQQ": "x"},
            "BRIDGE_Q__QQQQQ: is not a setting. Remove it. config.example.toml lists all settings.",
        ),
        (
            {"BRIDGE_SERVER__SERVICE_PORT": "8080", "BRIDGE_SERVICE_HOST": "10.0.0.1"},
            "BRIDGE_SERVER__SERVICE_PORT: is not a setting. Did you mean BRIDGE_SERVER__PORT?",
        ),
        (
            {"BRIDGE_CODEARTS__TOKEN": "x", "BRIDGE_CODEARTS__TOKEN_FILE": "y"},
            "BRIDGE_CODEARTS__TOKEN: is set, and BRIDGE_CODEARTS__TOKEN_FILE too. Keep one of the two.",
        ),
    ],
)
def test_a_variable_that_sets_nothing_is_reported(problems_of, environ, problem):
    assert problem in problems_of(BASE + OPEN + ROUTE, environ)


def test_two_tables_of_one_name_in_the_environment_are_reported(problems_of):
    two = ROUTE + '[[routes]]\nname = "shop-cn-1"\nproject_token = "t"\n'
    assert problems_of(BASE + OPEN + two, {"BRIDGE_ROUTES__SHOP_CN_1__TAGS": "a"}) == [
        "BRIDGE_ROUTES__SHOP_CN_1__TAGS: matches several tables. Use names that differ in letters or digits."
    ]


def service_links(service, *ports):
    """Return what Kubernetes sets in each pod for a Service with these (number, protocol, name) ports."""
    stem = service.upper().replace("-", "_")
    number, protocol, _ = ports[0]
    links = {
        f"{stem}_SERVICE_HOST": "10.0.0.1",
        f"{stem}_SERVICE_PORT": str(number),
        f"{stem}_PORT": f"{protocol}://10.0.0.1:{number}",
    }
    for number, protocol, name in ports:
        if name:
            links[f"{stem}_SERVICE_PORT_{name.upper().replace('-', '_')}"] = str(number)
        port = f"{stem}_PORT_{number}_{protocol.upper()}"
        links |= {
            port: f"{protocol}://10.0.0.1:{number}",
            f"{port}_PROTO": protocol,
            f"{port}_PORT": str(number),
            f"{port}_ADDR": "10.0.0.1",
        }
    return links


@pytest.mark.parametrize(
    "service",
    [
        "bridge",
        "bridge-admin",
        "bridge-server",
        "bridge-routes-shop",
        "bridge-port",
        "bridge-service-host",
        "bridge-service",
        "bridge--x",
        "bridge-routes--shop",
    ],
)
@pytest.mark.parametrize(
    "ports",
    [
        [(8080, "tcp", "")],
        [(8080, "tcp", "http"), (8081, "tcp", "admin"), (53, "udp", "dns"), (9, "sctp", "s--t")],
    ],
    ids=["one port", "named ports"],
)
def test_variables_of_a_kubernetes_service_set_nothing_and_stop_nothing(loads, service, ports):
    links = service_links(service, *ports)
    settings = loads(BASE + OPEN + ROUTE, links)
    assert settings == loads(BASE + OPEN + ROUTE, {})
    assert list(unused_variables(settings, links)) == []


@pytest.mark.parametrize(
    "variable", ["BRIDGE_CONFIG", "BRIDGE_URL", "BRIDGE_TOKEN", "BRIDGE_ADMIN_URL", "BRIDGE_ADMIN_TOKEN"]
)
def test_variables_of_commands_are_no_settings(loads, variable):
    settings = loads(BASE + OPEN + ROUTE, {variable: "x"})
    assert settings == loads(BASE + OPEN + ROUTE, {})
    assert list(unused_variables(settings, {variable: "x"})) == []


@given(st.from_regex(r"BRIDGE_[A-Z0-9_]{0,30}", fullmatch=True).filter(lambda name: "__" not in name), st.text())
def test_no_name_without_two_underscores_is_an_error(variable, value):
    raw: dict[str, object] = {}
    assert overlay(raw, {variable: value}) == ({}, [])
    assert not any(raw.values())


@pytest.mark.parametrize(
    ("variable", "value", "meant"),
    [
        ("BRIDGE_SERVER_PORT", "8080", "BRIDGE_SERVER__PORT"),
        ("BRIDGE_TESTNOD_BASE_URL", "https://x.example", "BRIDGE_TESTNOD__BASE_URL"),
        ("BRIDGE_TESTNOD_BASEURL", "https://x.example", "BRIDGE_TESTNOD__BASE_URL"),
        ("BRIDGE_ROUTES_SHOP_CN_1_PROJECT_TOKEN", "canary", "BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN"),
        ("BRIDGE_CALLERS_TOKENS", "canary", "BRIDGE_CALLERS__TOKENS"),
    ],
)
def test_a_misspelled_variable_without_two_underscores_gives_a_warning(loads, variable, value, meant):
    settings = loads(BASE + OPEN + ROUTE, {variable: value})
    (sentence,) = unused_variables(settings, {variable: value})
    assert sentence == f"{variable}: is not used, because it is not a setting. Did you mean {meant}?"


@pytest.mark.parametrize("variable", ["BRIDGE_X", "BRIDGE_HOME", "BRIDGE_NAME", "BRIDGE", "OTHER_SERVER__PORT"])
def test_a_name_of_something_else_is_passed_over(loads, variable):
    settings = loads(BASE + OPEN + ROUTE, {variable: "x"})
    assert list(unused_variables(settings, {variable: "x"})) == []
