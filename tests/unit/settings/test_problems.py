import pytest

BASE = '[server]\nhost = "127.0.0.1"\n{server}\n[callers]\nauth = "open"\n{rest}\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("server", "rest", "complaint"),
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
        ("", "[[polling]]", "polling: is not a table. Put its settings under a [table] heading."),
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
def test_a_bad_value_is_named_with_fault_and_remedy(complains, server, rest, complaint):
    text = BASE.replace("{server}", server).replace("{rest}", rest)
    assert complains(text + ROUTE) == [complaint]


def test_a_secret_of_the_wrong_kind_is_never_repeated(complains):
    said = complains(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[[routes]]\nname = "a"\nproject_token = 4711\n'
    )
    assert said == ["routes[0].project_token: is not text. Put it in quotes."]
