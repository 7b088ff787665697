import pytest


@pytest.mark.parametrize("empty", ['""', '[""]', "[]"])
def test_a_secret_that_is_left_empty_is_none_as_the_contract_writes_its_default(loads, empty):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
        f"[admin]\ntoken = {empty}\n[hook]\nsecret = {empty}\n"
        '[[routes]]\nname = "shop"\nproject_token = "tok-shop"\n'
    )
    assert (settings.admin.token, settings.hook.secret) == ((), ())


def test_of_several_secrets_the_empty_one_opens_nothing(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[admin]\ntoken = ["", "canary"]\n'
        '[[routes]]\nname = "shop"\nproject_token = "tok-shop"\n'
    )
    assert [token.get_secret_value() for token in settings.admin.token] == ["canary"]
