import pytest

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
            "BRIDGE_POLLING__SETTLE": "3s",
            "BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN": "from-environment",
            "BRIDGE_ROUTES__SHOP_CN_1__BRANCH": "main,release/*",
            "OTHER": "x",
        },
    )
    assert settings.server.port == 9000
    assert settings.testnod.base_url == "http://localhost:1"
    assert settings.testnod.allow_private_storage
    assert settings.testnod.storage_hosts == ("a.example", "b.example")
    assert settings.polling.settle.total_seconds() == 3
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
    quality = "BRIDGE_ROUTES__SHOP_CN_1__QUALITY__"
    settings = loads(
        BASE + OPEN + ROUTE,
        {
            f"{quality}TASK_ID": "t1",
            f"{quality}MAX_MAJOR": "3",
            "BRIDGE_CODEARTS__CHECK_ENDPOINT": "https://check.test",
        },
    )
    assert settings.routes[0].quality is not None
    assert (settings.routes[0].quality.task_id, settings.routes[0].quality.max_major) == ("t1", 3)


def test_a_variable_adds_no_table_that_the_file_does_not_have(loads):
    assert loads(BASE + OPEN + ROUTE, {"BRIDGE_SERVER__PORT": "1"}).routes[0].quality is None


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        (
            {"BRIDGE_SERVER_PORT": "8080"},
            "BRIDGE_SERVER_PORT: names no setting. Did you mean BRIDGE_SERVER__PORT?",
        ),
        (
            {"BRIDGE_ROUTES__STORE__PROJECT_TOKEN": "x"},
            (
                "BRIDGE_ROUTES__STORE__PROJECT_TOKEN: names no setting. "
                "Did you mean BRIDGE_ROUTES__SHOP_CN_1__PROJECT_TOKEN?"
            ),
        ),
        ({"BRIDGE_X": "x"}, "BRIDGE_X: names no setting. Remove it; config.example.toml names them all."),
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
        "BRIDGE_ROUTES__SHOP_CN_1__TAGS: names several tables. Give them names that differ in more."
    ]


def test_what_kubernetes_sets_for_a_service_called_bridge_is_passed_over(loads):
    links = {
        "BRIDGE_PORT": "tcp://10.0.0.1:8080",
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_SERVICE_PORT_HTTP": "8080",
        "BRIDGE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "BRIDGE_ADMIN_PORT_8081_TCP": "tcp://10.0.0.1:8081",
    }
    assert loads(BASE + OPEN + ROUTE, links) == loads(BASE + OPEN + ROUTE, {})
