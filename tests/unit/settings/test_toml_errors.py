"""Syntax errors: the line, the setting, the plain cause and the remedy, and never a value."""

import pytest

UNQUOTED = "is not in quotes. Put text and durations in quotes."
LIST = 'Write it as ["a", "b"].'
FORM = 'Write it as name = "value", or put # before the line.'
ESCAPE = "contains a single \\. Write \\\\, or put the text in ' instead of \"."
FOLLOWS = "Put # before a comment, \\ before a quotation mark in the text, and [ ] around several values."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nhost = 127.0.0.1\n", f"line 2: host {UNQUOTED}"),
        ("[polling]\n\nmax_age = 5s\n", f"line 3: max_age {UNQUOTED}"),
        ("[testnod]\nbase_url = https://app.testnod.com\n", f"line 2: base_url {UNQUOTED}"),
        ('[server]\nhost = "127.0.0.1\n[admin]\n', 'line 2: the text of host is not closed. Put a " at its end.'),
        ("[server]\nhost = 'a\n\nport = 1\n", "line 2: the text of host is not closed. Put a ' at its end."),
        (
            '[server]\nhost = """a\nport = 1\n',
            "line 2: the text of host is not closed. Put a quotation mark at its end.",
        ),
        ('[store]\nspool = "C:\\spool"\n', f"line 2: spool {ESCAPE}"),
        ("[server]\nport =\n", "line 2: port has no value. Write one, or put # before the line."),
        ("[server]\nhost = “a”\n", 'line 2: host is in curly quotation marks. Use ".'),
        (
            "[server]\nbehind_tls_proxy = True\n",
            "line 2: behind_tls_proxy is not a value of TOML. Use true or false, in small letters.",
        ),
        (
            "[store]\narchive = null\n",
            "line 2: archive is not a value of TOML. Put # before the line to use the default.",
        ),
        ('[server]\nhost: "a"\n', f"line 2: the line has a colon instead of =. {FORM}"),
        ("[server]\nhost\n", f"line 2: the line is neither a setting nor a heading. {FORM}"),
        ('{"server": {}}\n', "line 1: this is JSON, not TOML. Start with config.example.toml."),
        (
            "\n[server\n",
            "line 2: the heading is not closed. Write it as [table], or as [[table]] for a list of tables.",
        ),
        (
            '[server] host = "a"\n',
            "line 1: something follows the heading. Begin a new line, or put # before a comment.",
        ),
        (
            'tags = ["a" "b"]\n',
            f"line 1: the list of tags is not closed, or a comma is missing in it. {LIST}",
        ),
        (
            'tags = ["a"\n\n[admin]\nport = 1\n',
            f"line 1: the list of tags is not closed, or a comma is missing in it. {LIST}",
        ),
        ('tags = [\n  "a",\n  b\n]\n', f"line 3: tags contains a member without quotes, or is not closed. {LIST}"),
        ('tags = "a" "b"\n', f"line 1: something follows the value of tags. {FOLLOWS}"),
        ('name = "a\x01b"\n', "line 1: the line contains a control character. Remove it."),
        ("[server]\nport = 1\nport = 2\n", "line 3: port is set twice in this table. Remove one of the two."),
        (
            "[server]\nport = 1\n\n[admin]\n[server]\n",
            "line 5: the table server is already in line 1. Move these settings there, and remove this heading.",
        ),
        (
            "[[routes]]\n[routes]\n",
            (
                "line 2: routes may occur several times, so it needs two pairs of brackets. "
                "Write each heading as [[routes]]."
            ),
        ),
        (
            "[server]\n[[server]]\n",
            "line 2: server occurs once only, and is already in line 1. Write its heading as [server].",
        ),
    ],
)
def test_a_syntax_error_is_reported_by_line_with_cause_and_remedy(problems_of, tmp_path, text, problem):
    assert problems_of(text) == [f"{tmp_path / 'bridge.toml'}, {problem}"]


@pytest.mark.parametrize(
    "text",
    [
        "[admin]\ntoken = canary=\n",
        '[admin]\ntoken = "canary\n',
        '[admin]\ntoken = ["canary" "canary"]\n',
        "[admin]\ntoken = [\ncanary=\n]\n",
        "[admin]\ncanary = x\n",
        "[admin]\ncanary = 1\ncanary = 2\n",
        "canary: canary\n",
        "[canary]\n[canary]\n",
        "[canary\n",
        '[admin]\ntoken = "canary\\canary"\n',
        '[admin]\ntoken = "canary" canary\n',
        "[admin]\ntoken = 'canary\n",
        '[admin]\ntoken = """canary\n',
        "[admin]\nexpires_at = 2030-13-canary\n",
        "[admin]\ntoken = {canary = 1, canary = 2}\n",
        "canary.canary = 1\ncanary = 2\n",
        'a = "\\ucanary"\n',
    ],
)
def test_a_syntax_error_never_repeats_a_value(problems_of, text):
    (problem,) = problems_of(text)
    assert "canary" not in problem
    assert ", line " in problem
