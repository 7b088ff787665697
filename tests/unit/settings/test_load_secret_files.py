import pytest

from bridge.settings.load import MAX_SECRET_BYTES

BASE = '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token_file = "{folder}/secret"\n'


@pytest.mark.parametrize("content", ["canary", "canary\n", "canary\r\n", "\ufeffcanary\n"])
def test_a_secret_is_read_from_its_file_without_mark_and_last_line_break(loads, tmp_path, content):
    (tmp_path / "secret").write_bytes(content.encode())
    assert loads(BASE + ROUTE).routes[0].project_token.get_secret_value() == "canary"


def test_a_file_of_several_secrets_holds_one_a_line(loads, tmp_path):
    (tmp_path / "secret").write_text("canary-old\ncanary-new\n")
    settings = loads(BASE + '[admin]\ntoken_file = "{folder}/secret"\n' + ROUTE.replace("_file", "").replace("{", "x{"))
    assert [secret.get_secret_value() for secret in settings.admin.token] == ["canary-old", "canary-new"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory. Correct the path, or who may read it."),
        (b"", "is empty. Write the secret into it."),
        (b" \n", "is empty. Write the secret into it."),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text. Correct the path, or who may read it."),
        (b"x" * (MAX_SECRET_BYTES + 1), "is too large to be a secret. Correct the path."),
    ],
)
def test_a_file_without_a_secret_is_the_only_complaint(complains, tmp_path, content, fault):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert complains(BASE + ROUTE) == [f"routes[0].project_token_file: {fault}"]


def test_a_secret_given_twice_is_complained_of(complains):
    assert complains(BASE + ROUTE + 'project_token = "abc"\n') == [
        "routes[0].project_token_file: is set, and project_token too. Keep one of the two."
    ]


def test_a_file_that_is_not_named_by_text_is_complained_of(complains):
    assert complains(BASE + '[[routes]]\nname = "shop"\nproject_token_file = 5\n') == [
        "routes[0].project_token_file: is not text. Write the file's path in quotes."
    ]
