import pytest
import trustme

from bridge.settings.model import Settings, StoreSettings
from bridge.settings.rules import S3Location, ledger_rules, s3_location
from bridge.settings.warnings import warnings
from tests.unit.settings.conftest import LOOPBACK, ROUTE

HOST = '[server]\nhost = "127.0.0.1"\n'
OPEN = '[callers]\nauth = "open"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HOST + OPEN, "routes: is missing. Add a [[routes]] table with name and project_token."),
        (
            HOST + OPEN + '[[routes]]\nname = "shop"\n',
            (
                "routes[0].project_token: is missing. "
                "Set it here, in project_token_file, or in BRIDGE_ROUTES__SHOP__PROJECT_TOKEN."
            ),
        ),
        (
            HOST + OPEN + '[[routes]]\nproject_token = "t"\n',
            "routes[0].name: is missing. Give the route a unique name.",
        ),
        (
            HOST + OPEN + ROUTE + ROUTE,
            "routes[1].name: is also the name of routes[0]. Use unique names.",
        ),
        (
            HOST + OPEN + ROUTE + 'build_id = "{job_id}"\n',
            "routes[0].build_id: must contain {build_no}. Add it. Otherwise builds share a run in TestNod.",
        ),
        (
            HOST + OPEN + ROUTE + 'run_url = "https://x/{job}"\n',
            (
                "routes[0].run_url: contains the unknown field {job}. Use one of job_id, build_no, branch, commit, "
                "tag, region, devcloud_project_id, repo_name, daily_build_num, trigger_type, "
                "job_name, repo_url."
            ),
        ),
        (
            HOST + OPEN + ROUTE + 'tags = ["unit", "{branch}"]\n',
            (
                "routes[0].tags[1]: is empty or contains braces. "
                "Use a fixed word, because TestNod compares runs with the same tags."
            ),
        ),
        (
            HOST + OPEN + '[[routes]]\nname = "' + "x" * 65 + '"\nproject_token = "t"\n',
            "routes[0].name: is too long or not printable. Use at most 64 printable characters.",
        ),
        (
            HOST + OPEN + '[admin]\nhost = "0.0.0.0"\n' + ROUTE,
            (
                "admin.token: is missing, although other machines can reach admin.host. "
                'Set it here, in token_file, or in BRIDGE_ADMIN__TOKEN, or set admin.host = "127.0.0.1".'
            ),
        ),
        (
            HOST + OPEN + "[admin]\nport = 8080\n" + ROUTE,
            "admin.port: is also server.port. Use different ports.",
        ),
        (
            HOST + 'trusted_proxies = ["lb"]\n' + OPEN + ROUTE,
            'server.trusted_proxies[0]: is neither an address nor a network. Use an entry such as "10.0.0.0/8".',
        ),
        (
            '[server]\nhost = ""\n[callers]\ntokens = ["abcdef"]\n' + ROUTE,
            'server.host: is empty. Use the address to listen on, such as "127.0.0.1" or "0.0.0.0".',
        ),
        (
            HOST + OPEN + '[store]\nurl = "mysql://x"\n' + ROUTE,
            'store.url: is not the URL of a supported database. Use a URL such as "sqlite:///data/bridge.db" or "postgresql://bridge@host/bridge".',
        ),
        *(
            (
                HOST + OPEN + ROUTE + f"{glob} = {nothing}\n",
                f"routes[0].{glob}: is empty, so the route matches no build. Remove it to match every build.",
            )
            for glob, nothing in (("job_id", "[]"), ("branch", '""'), ("repo", '["shop", ""]'))
        ),
        (
            HOST + OPEN + '[store]\nspool = "ftp://x"\n' + ROUTE,
            'store.spool: is not a folder. Use a path such as "data/spool".',
        ),
        *(
            (
                HOST + OPEN + f'[testnod]\nbase_url = "{url}"\n' + ROUTE,
                ("testnod.base_url: is not a valid address. Use scheme and host only, such as https://host.example."),
            )
            for url in (
                *("", "app.testnod.com", "ftp://x", "https://", "https://u:p@x", "https://x?a=b", "https://x:y"),
                *(" https://x", "https://x ", "https://x\\n", "https://a b"),
            )
        ),
        (
            HOST + OPEN + '[testnod]\nstorage_hosts = ["https://x"]\n' + ROUTE,
            (
                "testnod.storage_hosts[0]: is not a host name. "
                'Use a name without scheme, port and path, such as "*.amazonaws.com".'
            ),
        ),
        (
            HOST + 'max_report_size = "0 B"\n' + OPEN + ROUTE,
            'server.max_report_size: must be greater than 0. Use a size such as "50 MiB".',
        ),
        (
            HOST + 'max_request_size = "1 MiB"\n' + OPEN + ROUTE,
            "server.max_request_size: must not be less than server.max_report_size. Increase it.",
        ),
        (
            HOST + OPEN + '[polling]\nmin_interval = "2m"\n' + ROUTE,
            "polling.max_interval: must not be less than polling.min_interval. Increase it.",
        ),
        (
            HOST + OPEN + '[delivery]\nretry_initial_delay = "20m"\n' + ROUTE,
            "delivery.retry_max_delay: must not be less than delivery.retry_initial_delay. Increase it.",
        ),
        (
            HOST + OPEN + '[delivery]\nlease_duration = "0s"\n' + ROUTE,
            'delivery.lease_duration: must be greater than 0. Use a duration such as "1s".',
        ),
        (
            HOST + OPEN + '[delivery]\ngive_up_after = "0s"\n' + ROUTE,
            'delivery.give_up_after: must be greater than 0. Use a duration such as "1s".',
        ),
        (
            HOST + 'trusted_proxies = ["10.0.0.1", "::1", "10.1.2.3/8"]\n' + OPEN + ROUTE,
            'server.trusted_proxies[2]: is an address within a network. Use "10.0.0.0/8" for the network.',
        ),
    ],
)
def test_settings_that_contradict_each_other_are_reported_with_cause_and_remedy(problems_of, text, problem):
    assert problems_of(text) == [problem]


STORAGE = '[testnod]\nstorage_hosts = ["*.amazonaws.com"]\n'
USER = 'auth = "password"\nuser = "ci"\npassword = "pw-canary"\ndomain = "firm"\n'
NO_PROXY = 'Use "host", ".suffix" or "10.0.0.0/8", each with or without :port, or "*".'
PROXY = "Use a URL such as http://proxy.example:3128, with user:password@ if the proxy requires them."


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (
            '[outbound]\nhttp_proxy = "http://proxy.example:3128"\n',
            (
                "testnod.storage_hosts: is required with outbound.http_proxy. List the hosts that reports are "
                'PUT to, such as "*.amazonaws.com": addresses cannot be checked there.'
            ),
        ),
        *(
            (
                STORAGE + f'[outbound]\nhttp_proxy = "{proxy}"\n',
                f"outbound.http_proxy: is not the address of a proxy. {PROXY}",
            )
            for proxy in ("proxy.example:3128", "socks5://p", "http://", "http://p/path", "http://p:0", "http://p?a")
        ),
        *(
            (
                f'[outbound]\nno_proxy = ["ok", "{entry}"]\n',
                f"outbound.no_proxy[1]: is neither a host nor a network. {NO_PROXY}",
            )
            for entry in ("http://x", "10.0.0.0/33", "a b", "x:70000", "")
        ),
        (
            '[outbound]\nca_file = "{folder}/absent.pem"\n',
            (
                "outbound.ca_file: cannot be read: No such file or directory. "
                "Name a readable file with PEM certificates."
            ),
        ),
        (
            '[outbound]\nca_file = "{folder}/bridge.toml"\n',
            "outbound.ca_file: contains no certificate in PEM form. Name a readable file with PEM certificates.",
        ),
        (
            '[codearts]\nauth = "token"\n',
            (
                'codearts.token: is required with auth = "token". '
                "Set it here, in token_file, or in BRIDGE_CODEARTS__TOKEN."
            ),
        ),
        (
            '[codearts]\nauth = "aksk"\naccess_key = "AK"\n',
            (
                'codearts.secret_key: is required with auth = "aksk". '
                "Set it here, in secret_key_file, or in BRIDGE_CODEARTS__SECRET_KEY."
            ),
        ),
        (
            '[codearts]\nregion = "r"\n' + USER.replace('user = "ci"\n', ""),
            'codearts.user: is required with auth = "password". Set it here or in BRIDGE_CODEARTS__USER.',
        ),
        (
            '[codearts]\nproject = "p"\n' + USER,
            ('codearts.iam_endpoint: is required with auth = "password". Set it, or codearts.region.'),
        ),
        (
            '[codearts]\niam_endpoint = "https://iam.example"\n' + USER,
            ('codearts.project: is required with auth = "password". Set it, or codearts.region.'),
        ),
        (
            '[codearts]\nregion = "evil.example/"\n',
            'codearts.region: is not the name of a region. Use a name such as "cn-north-4".',
        ),
    ],
)
def test_what_would_prevent_calls_is_reported_with_cause_and_remedy(problems_of, tables, problem):
    assert problems_of(LOOPBACK + tables + ROUTE) == [problem]


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
        + '[outbound]\nhttp_proxy_file = "{folder}/proxy"\n'
        + '[codearts]\npassword_file = "{folder}/password"\naccess_key_file = "{folder}/key"\n'
        + 'secret_key_file = "{folder}/secret"\n'
        + ROUTE
    )
    assert settings.outbound.http_proxy.get_secret_value() == "http://u:p@proxy.example:3128"
    codearts = settings.codearts
    secrets = (codearts.password, codearts.access_key, codearts.secret_key)
    assert [secret.get_secret_value() for secret in secrets] == ["pw", "AK", "SK"]


def test_no_proxy_is_taken_as_the_variable_is_written(loads):
    text = LOOPBACK + '[outbound]\nno_proxy = "localhost, .lan,10.0.0.0/8"\n' + ROUTE
    assert loads(text).outbound.no_proxy == ("localhost", ".lan", "10.0.0.0/8")
    assert loads(LOOPBACK + ROUTE, {"BRIDGE_OUTBOUND__NO_PROXY": "a,b"}).outbound.no_proxy == ("a", "b")


def test_authorities_of_our_own_are_taken(loads, tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert loads(LOOPBACK + '[outbound]\nca_file = "{folder}/ca.pem"\n' + ROUTE).outbound.ca_file


SYNTAX = "A glob has only *, ?, [abc] and [!abc]; it is not a regular expression."
JOB_ID = "A job_id is the 32 letters and digits at the end of the build task's page address."


@pytest.mark.parametrize(
    ("setting", "glob", "problem"),
    [
        ("job_id", "^ab.*$", f'contains "^", which no job_id has, so it matches nothing. {SYNTAX} {JOB_ID}'),
        ("job_id", "shop-*", f'contains "-", which no job_id has, so it matches nothing. {SYNTAX} {JOB_ID}'),
        ("job_id", "(a|b)*", f'contains "(", which no job_id has, so it matches nothing. {SYNTAX} {JOB_ID}'),
        ("job_id", "ab ", f'contains " ", which no job_id has, so it matches nothing. {SYNTAX} {JOB_ID}'),
        ("job_id", "shop", f"matches only text of 4 characters, and no job_id has this length. {JOB_ID}"),
        (
            "job_id",
            "a" * 33 + "*",
            f"matches only text of 33 characters or more, and no job_id has this length. {JOB_ID}",
        ),
        ("job_id", "?" * 31, f"matches only text of 31 characters, and no job_id has this length. {JOB_ID}"),
        (
            "job_id",
            "[abc",
            "contains a [ that is not closed, so it matches nothing. Close it, as in [abc], or write [[] for a [.",
        ),
        (
            "branch",
            "release/[0-9",
            "contains a [ that is not closed, so it matches nothing. Close it, as in [abc], or write [[] for a [.",
        ),
        (
            "branch",
            "v[9-0]",
            "contains a range that ends before it begins, so it matches nothing. Write it as in [a-f].",
        ),
        ("branch", "^main$", f'contains "^", which no name has, so it matches nothing. {SYNTAX}'),
        ("repo", "shop\\d", f'contains "\\", which no name has, so it matches nothing. {SYNTAX}'),
        ("project_id", "^a", f'contains "^", which no name has, so it matches nothing. {SYNTAX}'),
    ],
)
def test_a_glob_that_can_match_nothing_is_reported(problems_of, setting, glob, problem):
    assert problems_of(LOOPBACK + ROUTE + f"{setting} = '{glob}'\n") == [f"routes[0].{setting}: {problem}"]
    found = problems_of(LOOPBACK + ROUTE + f"{setting} = ['*', '{glob}']\n")
    assert found == [f"routes[0].{setting}[1]: {problem}"]


@pytest.mark.parametrize(
    "glob",
    ["*", "a*", "*9", "[0-9a-f]*", "[!a]*", "????????????????????????????????", "48c1a7d02e9b4f6d8a35c0b1e7f2d964"],
)
def test_a_glob_that_can_match_a_job_is_taken(loads, glob):
    settings = loads(LOOPBACK + ROUTE + f"job_id = '{glob}'\n")
    assert [line for line in warnings(settings) if "job_id" in line] == []


@pytest.mark.parametrize("glob", ["main", "release/*", "v[0-9].*[0-9]", "[[]x]", "[]a]", "feature/a+b", "[a-]", "[-a]"])
def test_a_glob_that_can_match_a_branch_is_taken(loads, glob):
    assert loads(LOOPBACK + ROUTE + f"branch = '{glob}'\n").routes[0].branch == (glob,)


@pytest.mark.parametrize(
    "host", [".amazonaws.com", "s3.example:9000", ".*\\.amazonaws\\.com", "a b", "{a,b}.example", ""]
)
def test_a_storage_host_that_can_match_nothing_is_reported(problems_of, host):
    remedy = 'Use a name without scheme, port and path, such as "*.amazonaws.com".'
    assert problems_of(LOOPBACK + f"[testnod]\nstorage_hosts = ['*.x.example', '{host}']\n" + ROUTE) == [
        f"testnod.storage_hosts[1]: is not a host name. {remedy}"
    ]


@pytest.mark.parametrize("path", ["/v1/job/{job_id}/*", "^/v1/job", "/v1/job/.*$", "/v1/**", "/v1/(a|b)"])
def test_a_proxy_path_that_can_match_nothing_is_reported(problems_of, path):
    (found,) = problems_of(LOOPBACK + f"[proxy]\npaths = ['{path}']\n" + ROUTE)
    assert found.startswith("proxy.paths[0]: is not a path.")


BESIDE = "contains a brace or a $ beside a field. Write fields as in {job_id}."


@pytest.mark.parametrize(
    ("name", "template", "problem"),
    [
        ("run_url", "https://x/{", BESIDE),
        ("run_url", "https://x/}{job_id}", BESIDE),
        ("run_url", "https://x/{{job_id}}", BESIDE),
        ("run_url", "https://x/${job_id}", BESIDE),
        ("build_id", "{job_id}-{build_no}-{", BESIDE),
        (
            "run_url",
            "ci.example/{job_id}",
            "is not the address of a page. Use an address such as https://ci.example/{job_id}/{build_no}.",
        ),
    ],
)
def test_a_template_with_loose_braces_is_reported(problems_of, name, template, problem):
    assert problems_of(LOOPBACK + ROUTE + f'{name} = "{template}"\n') == [f"routes[0].{name}: {problem}"]


def test_a_run_url_of_fields_is_taken(loads):
    url = "https://ci.example/{devcloud_project_id}/{job_id}?n={build_no}&b={branch}"
    assert loads(LOOPBACK + ROUTE + f'run_url = "{url}"\n').routes[0].run_url == url


PLACEHOLDER = (
    "contains a variable or a placeholder, which is not replaced. "
    "Write the value, or set it in the environment (config.example.toml shows how)."
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LOOPBACK + '[store]\nspool = "${HOME}/spool"\n' + ROUTE, "store.spool"),
        (LOOPBACK + '[admin]\ntoken = "$TOKEN"\n' + ROUTE, "admin.token"),
        (LOOPBACK + ROUTE.replace("tok-shop", "${TESTNOD_TOKEN}"), "routes[0].project_token"),
        (LOOPBACK + ROUTE.replace("tok-shop", "<token>"), "routes[0].project_token"),
        (LOOPBACK + ROUTE + 'tags = ["${TEAM}"]\n', "routes[0].tags"),
    ],
)
def test_a_variable_that_was_not_replaced_is_reported(problems_of, text, key):
    assert f"{key}: {PLACEHOLDER}" in problems_of(text)


def problems(url: str) -> list[str]:
    return [problem.fault for problem in ledger_rules(Settings(store=StoreSettings(url=url)))]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///data/bridge.db",
        "sqlite:////data/bridge.db",
        "postgresql://bridge@db.example/bridge?passfile=/run/secrets/pgpass",
        "postgres://bridge:se%2Fcret@db.example:5432/bridge",
        "postgresql://bridge@/bridge?host=/run/postgresql",
        "postgresql:///bridge?host=/run/postgresql&user=bridge",
        "postgresql://bridge@one.example:5432,two.example/bridge?target_session_attrs=read-write",
        "postgresql://bridge@/bridge?host=one.example,[2001:db8::1]:6432&target_session_attrs=read-write",
        "postgresql://bridge@[2001:db8::1]:6432/bridge",
        "postgresql://db.example/bridge?user=bridge@tenant",
        "postgresql://bridge:p@ss@db.example/bridge",
    ],
)
def test_a_ledger_has_a_url_of_one_reading(url):
    assert problems(url) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:se/cret@db.example/bridge",
        "postgresql://bridge:se?cret@db.example/bridge",
        "postgresql://bridge:se#cret@db.example/bridge",
        "postgresql://bridge:se?a=cret@db.example/bridge",
        "postgresql:bridge:secret@db.example",
        "postgresql://bridge:secret@[::1/bridge",
        "postgresql://bridge@db.example:abc/bridge",
        "postgresql://bridge@db.example:65536/bridge",
        "postgresql://bridge@one.example:1,two.example:99999/bridge",
    ],
)
def test_a_password_that_could_be_read_as_a_host_or_a_file_is_rejected_and_not_shown(url):
    assert problems(url) == ["is not a valid PostgreSQL URL."]


@pytest.mark.parametrize("hosts", ["one.example,[2001:db8::1]:6432", "[2001:db8::1],one.example", "[::1]:1,[::2]:2"])
def test_hosts_that_not_every_python_reads_in_a_url_belong_into_its_query(hosts):
    assert "newer Pythons" in problems(f"postgresql://bridge@{hosts}/bridge")[0]
    assert problems(f"postgresql://bridge@/bridge?host={hosts}") == []


@pytest.mark.parametrize(
    ("parameter", "remedy"),
    [
        ("connect_timeout", "Remove it."),
        ("channel_binding", "Remove it."),
        ("keepalives_idle", "Remove it."),
        ("sslmod", "Did you mean sslmode?"),
    ],
)
def test_a_parameter_of_libpq_that_the_driver_does_not_read_is_reported(parameter, remedy):
    url = f"postgresql://bridge@db.example/bridge?sslmode=require&{parameter}=3"
    assert [str(problem) for problem in ledger_rules(Settings(store=StoreSettings(url=url)))] == [
        f'store.url: has the parameter "{parameter}", which is not supported. {remedy}'
    ]


def test_settings_of_the_session_may_stand_in_the_url():
    assert problems("postgresql://bridge@db.example/bridge?application_name=bridge&search_path=ci") == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///data/bridge.db?mode=ro"])
def test_a_sqlite_ledger_is_a_file(url):
    assert problems(url) == ["is not the URL of a SQLite file."]


@pytest.mark.parametrize("url", ["", "mysql://x", "postgresql+asyncpg://bridge@db.example/bridge", "bridge.db"])
def test_other_databases_are_no_ledger(url):
    assert problems(url) == ["is not the URL of a supported database."]


BASE = '[callers]\nauth = "open"\n[server]\nhost = "127.0.0.1"\n[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data/spool", None),
        ("/var/spool", None),
        ("s3://bucket", S3Location(bucket="bucket", prefix="")),
        ("s3://bucket/", S3Location(bucket="bucket", prefix="")),
        ("s3://my.bucket-1/a", S3Location(bucket="my.bucket-1", prefix="a/")),
        ("s3://bucket/team=a/b_c/", S3Location(bucket="bucket", prefix="team=a/b_c/")),
    ],
)
def test_a_place_is_a_folder_or_a_bucket_with_what_keys_begin_with(text, place):
    assert s3_location(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://host/path",
        "s3://",
        "s3://b",
        "s3://Bucket/x",
        "s3://bucket//x",
        "s3://bucket/a/../b",
        "s3://bucket/./a",
        "s3://bucket/a b",
        "s3://bucket/a?x=1",
        "s3://bucket/a%2e",
        "s3://bucket/ä",
        "s3://key:secret@bucket/a",
        "s3://bucket/" + "a" * 600,
        "s3://bucket/a\n",
    ],
)
def test_other_text_is_not_a_location(text):
    with pytest.raises(ValueError, match="is not a"):
        s3_location(text)


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ('[store]\nspool = "s3://B"', "store.spool: is not a valid location in S3."),
        ('[store]\nspool = "ftp://x"', "store.spool: is not a folder."),
        ('[store]\nspool = "s3:/bucket/x"', 'store.spool: is not a folder. Use a URL such as "s3://bucket/prefix"'),
        ('[store]\nspool = "S3://bucket/x"', 'store.spool: is not a folder. Use a URL such as "s3://bucket/prefix"'),
        ('[store]\narchive = "file:///x"', "store.archive: is not a folder."),
        ('[store]\narchive = "data/archive "', "store.archive: is not a folder."),
        (
            '[store]\nspool = "~/spool"',
            "store.spool: begins with ~, which is not expanded. Write the path of the folder.",
        ),
        ('[store]\nurl = "sqlite:///~/b.db"', "store.url: begins with ~, which is not expanded."),
        ('[s3]\naccess_key_id = "only"', "s3: has only one of access_key_id and secret_access_key."),
        ('[s3]\nendpoint_url = "s3.example"', "s3.endpoint_url: is not a valid address"),
    ],
)
def test_storage_that_cannot_be_used_is_reported(problems_of, tables, problem):
    (found,) = problems_of(tables + "\n" + BASE)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("spool", "archive"),
    [
        ("data", "data"),
        ("data", "data/archive"),
        ("data/kept/spool", "data/kept"),
        ("s3://bucket", "s3://bucket/archive"),
        ("s3://bucket/a/spool", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket/a/"),
    ],
)
def test_an_archive_that_overlaps_with_the_spool_is_rejected(problems_of, spool, archive):
    (found,) = problems_of(f'[store]\nspool = "{spool}"\narchive = "{archive}"\n{BASE}')
    assert found.startswith("store.archive: overlaps with store.spool.")


@pytest.mark.parametrize(
    ("spool", "archive"),
    [
        ("data/spool", "data/archive"),
        ("s3://bucket/a", "s3://bucket/ab"),
        ("s3://one", "s3://two"),
        ("data", "s3://b-1"),
    ],
)
def test_each_in_a_place_of_its_own_is_taken(loads, spool, archive):
    assert loads(f'[store]\nspool = "{spool}"\narchive = "{archive}"\n{BASE}').store.archive == archive


def test_unused_and_unencrypted_s3_gives_a_warning(loads):
    account = '[s3]\nendpoint_url = "http://s3.lan:9000"\n'
    found = warnings(loads(account + BASE))
    assert [line for line in found if line.startswith("s3: is not used")]
    found = warnings(loads(account + '[store]\nspool = "s3://bucket"\n' + BASE))
    assert [line for line in found if line.startswith("s3.endpoint_url: is plain http")]


TOKEN = '[[callers.tokens]]\nname = "ci"\ntoken = "canary-token"\n'
KEY = '[[callers.keys]]\nname = "sdk"\naccess_key = "AKSHOP"\nsecret_key = "canary-sk"\n'
IAM = '[codearts]\nregion = "cn-north-4"\ndomain = "firm"\n'
IN_THE_CLEAR = (
    "server.behind_tls_proxy: is false, so tokens would cross the network unencrypted. "
    "If a proxy in front terminates TLS, set behind_tls_proxy = true under [server]. "
    'Otherwise set tls_cert_file and tls_key_file there, or host = "127.0.0.1".'
)
SCHEMES = {
    '"token"': TOKEN,
    '"iam"': IAM,
    '["aksk", "token"]': KEY + TOKEN,
    '["open", "iam"]\nallow_open = true': IAM,
    '"aksk"': KEY + '[webhook]\nsecret = "canary-hook"\n',
}


def callers(auth):
    return f"[callers]\nauth = {auth}\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "bridge.example"])
@pytest.mark.parametrize("auth", SCHEMES)
def test_tokens_do_not_cross_a_network_in_the_clear(problems_of, auth, host):
    text = f'[server]\nhost = "{host}"\n' + callers(auth) + SCHEMES[auth] + ROUTE
    assert problems_of(text) == [IN_THE_CLEAR]


@pytest.mark.parametrize("auth", SCHEMES)
@pytest.mark.parametrize(
    "server", ['host = "127.0.0.1"', 'host = "::1"', 'host = "localhost"', "behind_tls_proxy = true"]
)
def test_they_may_on_loopback_and_behind_a_tls_proxy(loads, auth, server):
    assert loads(f"[server]\n{server}\n" + callers(auth) + SCHEMES[auth] + ROUTE).callers.auth


@pytest.mark.parametrize("auth", SCHEMES)
def test_they_may_over_tls(loads, tmp_path, auth):
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    server = '[server]\ntls_cert_file = "{folder}/both.pem"\ntls_key_file = "{folder}/both.pem"\n'
    assert loads(server + callers(auth) + SCHEMES[auth] + ROUTE).server.tls_cert_file


def test_signatures_show_no_key_so_they_may_cross_it(loads):
    assert loads(callers('"aksk"') + KEY + ROUTE).callers.auth == ("aksk",)


@pytest.mark.parametrize(
    ("setting", "name"), [("mirror = true\n", "mirror"), ('result_suite = "always"\n', "result_suite")]
)
def test_what_compares_with_codearts_needs_its_endpoint(loads, problems_of, setting, name):
    remedy = f"Set it to the address of CodeArts Build, or remove {name}."
    assert problems_of(LOOPBACK + ROUTE + setting) == [f"routes[0].{name}: requires codearts.endpoint. {remedy}"]
    assert loads(LOOPBACK + '[codearts]\nendpoint = "https://build.test"\n' + ROUTE + setting)


def test_a_result_suite_is_one_of_three_words(loads, problems_of):
    assert loads(LOOPBACK + ROUTE).routes[0].result_suite == "off"
    (problem,) = problems_of(LOOPBACK + ROUTE + 'result_suite = "sometimes"\n')
    assert problem.startswith("routes[0].result_suite: ")


CHECK = '[codearts]\ncheck_endpoint = "https://check.test"\n'
TABLE = "[routes.code_check]\n"
TASK = 'task_id = "e2acda04fab44eb991b9f28c00000000"\n'


@pytest.mark.parametrize("who", [TASK, 'job_id = "abc"\n', TASK + 'job_id = "abc"\n'])
def test_a_task_or_a_record_can_be_asked_about(loads, who):
    code_check = loads(LOOPBACK + CHECK + ROUTE + TABLE + who).routes[0].code_check
    assert (code_check.max_major, code_check.on_missing, code_check.timeout.total_seconds()) == (None, "report", 120)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            LOOPBACK + CHECK + ROUTE + TABLE,
            "routes[0].code_check.task_id: is missing. Set it to the id of a Check task, or remove the table.",
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + 'task_id = "a/b"\n',
            (
                "routes[0].code_check.task_id: is not an id of CodeArts Check. An id has 1 to 32 letters and digits. "
                "Copy it from the address of its page in CodeArts Check."
            ),
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + TASK + f'job_id = "{"x" * 33}"\n',
            (
                "routes[0].code_check.job_id: is not an id of CodeArts Check. An id has 1 to 32 letters and digits. "
                "Copy it from the address of its page in CodeArts Check."
            ),
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + TASK + 'timeout = "0s"\n',
            'routes[0].code_check.timeout: must be greater than 0. Use a duration such as "10s".',
        ),
        (
            LOOPBACK + ROUTE + TABLE + TASK,
            (
                "codearts.check_endpoint: is missing, although a route has a code_check table. "
                "Use an address such as https://codearts-check.cn-north-4.myhuaweicloud.com."
            ),
        ),
    ],
)
def test_a_code_check_that_could_never_return_a_report_is_rejected(problems_of, text, problem):
    assert problems_of(text) == [problem]


RULES = """[[routes.rewrite]]
attribute = "classname"
pattern = 'Chrome [0-9.]+'
replacement = "<browser>"

[[routes.rewrite]]
replacement = "x"
pattern = "(a"
"""


def test_a_rule_that_cannot_be_used_is_named_with_its_line(problems_of):
    text = (
        HOST + OPEN + ROUTE + RULES + ROUTE.replace("shop", "other") + RULES.replace("(a", "[a]").replace("x", "\\\\2")
    )
    line = text.splitlines().index('pattern = "(a"') + 1
    problems = problems_of(text)
    assert problems[0].startswith(f"routes[0].rewrite[1].pattern (line {line}): is not a regular expression: missing )")
    assert problems[1].startswith(f"routes[1].rewrite[1].replacement (line {text.count(chr(10)) - 1}): has the group 2")
    assert len(problems) == 2


def test_an_attribute_that_is_no_name_of_a_case_is_rejected(problems_of):
    [problem] = problems_of(HOST + OPEN + ROUTE + RULES.replace("classname", "file").replace("(a", "a"))
    assert problem.startswith("routes[0].rewrite[0].attribute (line")
