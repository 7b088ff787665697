import pytest
import trustme

ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
TOKEN = '[[callers.tokens]]\nname = "ci"\ntoken = "canary-token"\n'
KEY = '[[callers.keys]]\nname = "sdk"\naccess_key = "AKSHOP"\nsecret_key = "canary-sk"\n'
IAM = '[codearts]\nregion = "cn-north-4"\ndomain = "firm"\n'
IN_THE_CLEAR = (
    "server.behind_tls: is not true, and tokens would cross the network in the clear. "
    "Write behind_tls = true under [server] if a proxy in front speaks TLS. "
    'Else write tls_cert_file and tls_key_file there, or host = "127.0.0.1".'
)
SCHEMES = {
    '"token"': TOKEN,
    '"iam"': IAM,
    '["aksk", "token"]': KEY + TOKEN,
    '["open", "iam"]\nallow_open = true': IAM,
    '"aksk"': KEY + '[hook]\nsecret = "canary-hook"\n',
}


def callers(auth):
    return f"[callers]\nauth = {auth}\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "bridge.example"])
@pytest.mark.parametrize("auth", SCHEMES)
def test_tokens_do_not_cross_a_network_in_the_clear(complains, auth, host):
    text = f'[server]\nhost = "{host}"\n' + callers(auth) + SCHEMES[auth] + ROUTE
    assert complains(text) == [IN_THE_CLEAR]


@pytest.mark.parametrize("auth", SCHEMES)
@pytest.mark.parametrize("server", ['host = "127.0.0.1"', 'host = "::1"', 'host = "localhost"', "behind_tls = true"])
def test_they_may_on_this_machine_and_behind_somebody_who_speaks_tls(loads, auth, server):
    assert loads(f"[server]\n{server}\n" + callers(auth) + SCHEMES[auth] + ROUTE).callers.auth


@pytest.mark.parametrize("auth", SCHEMES)
def test_they_may_over_tls(loads, tmp_path, auth):
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    server = '[server]\ntls_cert_file = "{folder}/both.pem"\ntls_key_file = "{folder}/both.pem"\n'
    assert loads(server + callers(auth) + SCHEMES[auth] + ROUTE).server.tls_cert_file


def test_signatures_show_no_key_so_they_may_cross_it(loads):
    assert loads(callers('"aksk"') + KEY + ROUTE).callers.auth == ("aksk",)
