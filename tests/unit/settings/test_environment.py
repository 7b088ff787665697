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


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        (
            {"BRIDGE_SERVER__PROT": "8080"},
            "BRIDGE_SERVER__PROT: is not a setting. Did you mean BRIDGE_SERVER__PORT?",
        ),
        (
            {"BRIDGE_ROUTES__STORE__PROJECT_TOKEN": "x"},
            (
                "BRIDGE_ROUTES__STORE__PROJECT_TOKEN: is not a setting. "
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
def test_a_variable_that_sets_nothing_is_complained_of(complains, environ, complaint):
    assert complaint in complains(BASE + OPEN + ROUTE, environ)


def test_two_tables_of_one_name_in_the_environment_are_complained_of(complains):
    two = ROUTE + '[[routes]]\nname = "shop-cn-1"\nproject_token = "t"\n'
    assert complains(BASE + OPEN + two, {"BRIDGE_ROUTES__SHOP_CN_1__TAGS": "a"}) == [
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
    assert overlay(raw, {variable: value}) == []
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
def test_a_misspelled_variable_without_two_underscores_is_advice(loads, variable, value, meant):
    settings = loads(BASE + OPEN + ROUTE, {variable: value})
    (sentence,) = unused_variables(settings, {variable: value})
    assert sentence == f"{variable}: is not used, because it is not a setting. Did you mean {meant}?"


@pytest.mark.parametrize("variable", ["BRIDGE_X", "BRIDGE_HOME", "BRIDGE_NAME", "BRIDGE", "OTHER_SERVER__PORT"])
def test_a_name_of_something_else_is_passed_over(loads, variable):
    settings = loads(BASE + OPEN + ROUTE, {variable: "x"})
    assert list(unused_variables(settings, {variable: "x"})) == []
