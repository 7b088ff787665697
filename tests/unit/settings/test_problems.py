import pytest

BASE = '[server]\nhost = "127.0.0.1"\n{server}\n[callers]\nauth = "open"\n{rest}\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("server", "rest", "complaint"),
    [
        ('port = "x"', "", "server.port: is not a whole number. Write it without quotes, like 8080."),
        ("port = true", "", "server.port: is not a whole number. Write it without quotes, like 8080."),
        ("port = 70000", "", "server.port: is too large. Write 65535 or less."),
        ("max_files = 0", "", "server.max_files: is too small. Write 1 or more."),
        ("port = 8080\nprot = 1", "", "server.prot: is not a setting. Did you mean port?"),
        ("zzzzzz = 1", "", "server.zzzzzz: is not a setting. Remove it; config.example.toml names them all."),
        ('on_invalid = "ignore"', "", "server.on_invalid: cannot be \"ignore\". Write 'fail' or 'warn'."),
        (
            "shutdown_timeout = 25",
            "",
            (
                "server.shutdown_timeout: is not a duration; use a number and a unit, like 5s. "
                'Write it in quotes, with the units d, h, m, s and ms in this order, like "1h30m" or "1.5s".'
            ),
        ),
        (
            'shutdown_timeout = "25"',
            "",
            (
                'server.shutdown_timeout: "25" is not a duration; use a number and a unit, like 5s. '
                'Write it in quotes, with the units d, h, m, s and ms in this order, like "1h30m" or "1.5s".'
            ),
        ),
        (
            "max_report_size = 50",
            "",
            (
                "server.max_report_size: is no size: a number alone has no unit. "
                'Write a number and a unit (B, KiB, MiB, GiB or TiB) in quotes, like "50 MiB".'
            ),
        ),
        ('trusted_proxies = "a"', "", 'server.trusted_proxies: is not a list. Write it in brackets, like ["a", "b"].'),
        (
            "behind_tls_proxy = 7",
            "",
            "server.behind_tls_proxy: is neither true nor false. Write true or false, without quotes.",
        ),
        ("", "[store]\nspool = 5", "store.spool: is not text. Write it in quotes."),
        (
            "",
            "[polling]\nrequests_per_minute = 0",
            "polling.requests_per_minute: is too small. Write a number above 0.0.",
        ),
        ("", "polling = 5", "callers.polling: is not a setting. Remove it; config.example.toml names them all."),
        ("", "[[polling]]", "polling: is not a table. Write its settings under a [table] heading."),
        (
            "",
            '[[callers.tokens]]\nname = "a"\ntoken = "abcdef"\nexpires_at = 2030-01-01T00:00:00',
            "callers.tokens[0].expires_at: has no time zone. Write it like 2030-12-31T00:00:00Z.",
        ),
        (
            "",
            '[[callers.tokens]]\nname = "a"\ntoken = "abcdef"\nscopes = ["all"]',
            "callers.tokens[0].scopes[0]: cannot be \"all\". Write 'upload', 'status' or 'proxy'.",
        ),
        (
            "",
            '[admin]\ntoken = ["ok-token", "two\\nlines"]',
            "admin.token[1]: holds a line break, a control character or a blank at an end. Copy it again, alone.",
        ),
        ("", "[admin]\ntoken = 5", 'admin.token: is not a list. Write it in brackets, like ["a", "b"].'),
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
    assert said == ["routes[0].project_token: is not text. Write it in quotes."]
