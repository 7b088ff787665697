import pytest

BASE = '[server]\nhost = "127.0.0.1"\n{server}\n[callers]\nauth = "open"\n{rest}\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("server", "rest", "problem"),
    [
        ('port = "x"', "", "server.port: is not a whole number. Use a number without quotes, such as 8080."),
        ("port = true", "", "server.port: is not a whole number. Use a number without quotes, such as 8080."),
        ("port = 70000", "", "server.port: must be 65535 or less. Change it, or remove it to use the default."),
        ("max_files = 0", "", "server.max_files: must be 1 or more. Change it, or remove it to use the default."),
        ("port = 8080\nprot = 1", "", "server.prot: is not a setting. Did you mean port?"),
        ("zzzzzz = 1", "", "server.zzzzzz: is not a setting. Remove it. config.example.toml lists all settings."),
        ('on_invalid = "ignore"', "", "server.on_invalid: cannot be \"ignore\". Use 'fail' or 'warn'."),
        (
            "shutdown_timeout = 25",
            "",
            (
                "server.shutdown_timeout: is not a duration. "
                'Use a number and a unit, such as "5s". Units in order: d, h, m, s, ms.'
            ),
        ),
        (
            'shutdown_timeout = "25"',
            "",
            (
                'server.shutdown_timeout: "25" is not a duration. '
                'Use a number and a unit, such as "5s". Units in order: d, h, m, s, ms.'
            ),
        ),
        (
            "max_report_size = 50",
            "",
            (
                "server.max_report_size: is not a size. "
                'Use a number and a unit (B, KiB, MiB, GiB or TiB), such as "50 MiB".'
            ),
        ),
        (
            'trusted_proxies = "a"',
            "",
            'server.trusted_proxies: is not a list. Put the values in brackets, such as ["a", "b"].',
        ),
        (
            "behind_tls_proxy = 7",
            "",
            "server.behind_tls_proxy: is neither true nor false. Use true or false, without quotes.",
        ),
        ("", "[store]\nspool = 5", "store.spool: is not text. Put it in quotes."),
        (
            "",
            "[polling]\nrequests_per_minute = 0",
            "polling.requests_per_minute: must be greater than 0. Change it, or remove it to use the default.",
        ),
        ("", "polling = 5", "callers.polling: is not a setting. Remove it. config.example.toml lists all settings."),
        (
            "",
            "[[polling]]",
            "polling: is a list of tables, although it occurs once only. Write [polling] for [[polling]].",
        ),
        (
            "",
            '[callers.tokens]\nname = "a"',
            (
                "callers.tokens: is one table, although it may occur several times. "
                "Write [[callers.tokens]] for [callers.tokens]."
            ),
        ),
        (
            "",
            "[delivery]\nconcurrency = 1.5",
            "delivery.concurrency: must be a whole number. Remove the decimal places.",
        ),
        (
            "",
            "[polling]\nport = 1",
            (
                "polling.port: is not a setting of this table. "
                "Put it under [server] or [admin], before the next heading."
            ),
        ),
        (
            "",
            '[[callers.tokens]]\nname = "a"\ntoken = "abcdef"\nexpires_at = 2030-01-01T00:00:00',
            "callers.tokens[0].expires_at: has no time zone. Use a time such as 2030-12-31T00:00:00Z.",
        ),
        (
            "",
            '[[callers.tokens]]\nname = "a"\ntoken = "abcdef"\nscopes = ["all"]',
            "callers.tokens[0].scopes[0]: cannot be \"all\". Use 'upload', 'status' or 'proxy'.",
        ),
        (
            "",
            '[admin]\ntoken = ["ok-token", "two\\nlines"]',
            "admin.token[1]: contains a line break, a control character or a space at either end. Copy it again.",
        ),
        ("", "[admin]\ntoken = 5", 'admin.token: is not a list. Put the values in brackets, such as ["a", "b"].'),
        (
            "",
            '[codearts]\npasword_file = "x"',
            "codearts.pasword_file: is not a setting. Did you mean password_file?",
        ),
    ],
)
def test_an_invalid_value_is_reported_with_cause_and_remedy(problems_of, server, rest, problem):
    text = BASE.replace("{server}", server).replace("{rest}", rest)
    assert problems_of(text + ROUTE) == [problem]


def test_a_secret_of_the_wrong_kind_is_never_repeated(problems_of):
    found = problems_of(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[[routes]]\nname = "a"\nproject_token = 4711\n'
    )
    assert found == ["routes[0].project_token: is not text. Put it in quotes."]


def test_a_setting_before_the_first_heading_is_shown_its_table(problems_of):
    text = BASE.replace("{server}", "").replace("{rest}", "")
    assert problems_of('base_url = "https://x.example"\n' + text + ROUTE) == [
        "base_url: is not a setting outside of a table. Put it under [testnod], before the next heading."
    ]


def test_a_setting_below_an_inner_table_is_shown_the_outer_one(problems_of):
    text = BASE.replace("{server}", "").replace("{rest}", '[codearts]\ncheck_endpoint = "https://check.test"')
    assert problems_of(text + ROUTE + '[routes.code_check]\ntask_id = "a"\ntags = ["x"]\n') == [
        "routes[0].code_check.tags: is not a setting of this table. Put it under [[routes]], before the next heading."
    ]


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("[::1]", 'is in brackets. Write an IPv6 address without them, such as "::1".'),
        ("127.0.0.1:8080", 'contains a port. Set it as port, and use an address such as "127.0.0.1".'),
        ("http://127.0.0.1", 'is a URL. Use an address without scheme and path, such as "127.0.0.1".'),
        ("*", 'is not an address. Use "0.0.0.0" to listen on every address.'),
        ("127.0.0.1 ", 'is not an address. Use an address such as "127.0.0.1".'),
    ],
)
def test_a_host_that_is_not_an_address_is_the_only_problem(problems_of, host, problem):
    server = f'[server]\nhost = "{host}"\n[callers]\nauth = "open"\n'
    assert problems_of(server + ROUTE) == [f"server.host: {problem}"]
    text = BASE.replace("{server}", "").replace("{rest}", f'[admin]\nhost = "{host}"')
    assert problems_of(text + ROUTE) == [f"admin.host: {problem}"]
