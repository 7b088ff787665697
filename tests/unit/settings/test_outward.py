import pytest
import trustme

LOOPBACK = '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
STORAGE = '[testnod]\nstorage_hosts = ["*.amazonaws.com"]\n'
USER = 'auth = "password"\nuser = "ci"\npassword = "pw-canary"\ndomain = "firm"\n'
NO_PROXY = 'Write "host", ".suffix", "10.0.0.0/8", each with :port or without, or "*".'
PROXY = "Write it like http://proxy.example:3128, with user:password@ where it wants them."


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (
            '[client]\nproxy = "http://proxy.example:3128"\n',
            (
                "testnod.storage_hosts: is missing, and client.proxy is set. Name the hosts that reports are PUT to, "
                'like "*.amazonaws.com": behind a proxy addresses are unseen.'
            ),
        ),
        *(
            (STORAGE + f'[client]\nproxy = "{proxy}"\n', f"client.proxy: is no address of a proxy. {PROXY}")
            for proxy in ("proxy.example:3128", "socks5://p", "http://", "http://p/path", "http://p:0", "http://p?a")
        ),
        *(
            (
                f'[client]\nno_proxy = ["ok", "{entry}"]\n',
                f"client.no_proxy[1]: is neither a host nor a network. {NO_PROXY}",
            )
            for entry in ("http://x", "10.0.0.0/33", "a b", "x:70000", "")
        ),
        (
            '[client]\nca_file = "{folder}/absent.pem"\n',
            (
                "client.ca_file: cannot be read: No such file or directory. "
                "Name a file with PEM certificates that may be read."
            ),
        ),
        (
            '[client]\nca_file = "{folder}/bridge.toml"\n',
            "client.ca_file: holds no certificate in PEM form. Name a file with PEM certificates that may be read.",
        ),
        (
            '[codearts]\nauth = "token"\n',
            (
                'codearts.token: is missing, and auth is "token". '
                "Set it here, in token_file, or in BRIDGE_CODEARTS__TOKEN."
            ),
        ),
        (
            '[codearts]\nauth = "aksk"\naccess_key = "AK"\n',
            (
                'codearts.secret_key: is missing, and auth is "aksk". '
                "Set it here, in secret_key_file, or in BRIDGE_CODEARTS__SECRET_KEY."
            ),
        ),
        (
            '[codearts]\nregion = "r"\n' + USER.replace('user = "ci"\n', ""),
            'codearts.user: is missing, and auth is "password". Set it here or in BRIDGE_CODEARTS__USER.',
        ),
        (
            '[codearts]\nproject = "p"\n' + USER,
            (
                'codearts.iam_endpoint: is missing, and auth is "password". '
                "Tokens come from IAM: set it, or codearts.region."
            ),
        ),
        (
            '[codearts]\niam_endpoint = "https://iam.example"\n' + USER,
            (
                'codearts.project: is missing, and auth is "password". '
                "Tokens are for one project: set it, or codearts.region."
            ),
        ),
        (
            '[codearts]\nregion = "evil.example/"\n',
            'codearts.region: is no name of a region. Write it like "cn-north-4".',
        ),
    ],
)
def test_what_would_keep_calls_from_going_out_is_named_with_fault_and_remedy(complains, tables, complaint):
    assert complains(LOOPBACK + tables + ROUTE) == [complaint]


@pytest.mark.parametrize(
    "codearts",
    [
        'region = "cn-north-4"\n' + USER,
        'iam_endpoint = "https://iam.example"\nproject = "p"\n' + USER,
        'auth = "aksk"\naccess_key = "AK"\nsecret_key = "SK"\n',
        'auth = "token"\ntoken = "t"\n',
    ],
)
def test_whole_credentials_are_taken(loads, codearts):
    assert loads(LOOPBACK + "[codearts]\n" + codearts + ROUTE).codearts.auth != "none"


@pytest.mark.parametrize(
    ("codearts", "url"),
    [
        ("", ""),
        ('region = "cn-north-4"\n', "https://iam.cn-north-4.myhuaweicloud.com"),
        ('region = "cn-north-4"\niam_endpoint = "https://iam.lan"\n', "https://iam.lan"),
    ],
)
def test_iam_is_the_regions_unless_it_is_named(loads, codearts, url):
    assert loads(LOOPBACK + "[codearts]\n" + codearts + ROUTE).codearts.iam_url == url


def test_every_secret_of_the_way_out_and_of_codearts_may_stand_in_a_file(loads, tmp_path):
    for name, text in {"proxy": "http://u:p@proxy.example:3128", "password": "pw", "key": "AK", "secret": "SK"}.items():
        (tmp_path / name).write_text(text + "\n")
    settings = loads(
        LOOPBACK
        + STORAGE
        + '[client]\nproxy_file = "{folder}/proxy"\n'
        + '[codearts]\npassword_file = "{folder}/password"\naccess_key_file = "{folder}/key"\n'
        + 'secret_key_file = "{folder}/secret"\n'
        + ROUTE
    )
    assert settings.client.proxy.get_secret_value() == "http://u:p@proxy.example:3128"
    codearts = settings.codearts
    secrets = (codearts.password, codearts.access_key, codearts.secret_key)
    assert [secret.get_secret_value() for secret in secrets] == ["pw", "AK", "SK"]


def test_no_proxy_is_taken_as_the_variable_is_written(loads):
    text = LOOPBACK + '[client]\nno_proxy = "localhost, .lan,10.0.0.0/8"\n' + ROUTE
    assert loads(text).client.no_proxy == ("localhost", ".lan", "10.0.0.0/8")
    assert loads(LOOPBACK + ROUTE, {"BRIDGE_CLIENT__NO_PROXY": "a,b"}).client.no_proxy == ("a", "b")


def test_authorities_of_our_own_are_taken(loads, tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert loads(LOOPBACK + '[client]\nca_file = "{folder}/ca.pem"\n' + ROUTE).client.ca_file
