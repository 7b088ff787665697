"""The commands: output and exit status."""

import inspect
import io
import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

import pytest

from bridge import __version__, cli
from bridge.cli import main
from bridge.clock import SystemClock
from bridge.domain.callers import hash_token
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.ledger import newest_revision
from tests.support.ports import REFUSED_URL, held_port

JOB_ID = "48c1a7d02e9b4f6d8a35c0b1e7f2d964"
CANARY = "canary-project-token"
LARGE = f'<testsuite name="s"><!--{"x" * 200_000}--></testsuite>'  # more than rides in a row
PATIENCE_SECONDS = 90  # for a process to say or do what it must; a machine may be busy

SETTINGS = """\
[server]
host = "127.0.0.1"
port = 0
[admin]
port = {admin_port}
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
min_free_space = "1 MiB"
[testnod]
base_url = "{refused_url}"
[callers]
auth = "open"
[[routes]]
name = "shop"
project_token = "{token}"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "bridge.toml"
    with held_port() as admin_port:
        values = {"admin_port": admin_port, "refused_url": REFUSED_URL, "token": CANARY}
        path.write_text(SETTINGS.format(folder=tmp_path, **values), encoding="utf-8")
        yield path


@pytest.fixture
def bridge(capsys, monkeypatch):
    """Run a command in this process; return its status, its stdout and its stderr."""
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    before = os.umask(0o022)
    os.umask(before)
    yield run
    os.umask(before)


@contextmanager
def process(*arguments):
    """Run a command in a process of its own and end it with the block, however the block ends."""
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


@contextmanager
def gateway(config):
    """Run `bridge serve` until it listens; yield the process, its first lines, and the address that CI uploads to."""
    with process("serve", "--config", config) as serving:
        lines = []
        for line in serving.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "gateway_listening":
                break
        else:
            pytest.fail(f"The gateway ended before it listened: {lines}")
        yield serving, lines, lines[-1]["server"]


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_names_every_command(bridge):
    status, out, _ = bridge("--help")

    assert status == 0
    for command in ("serve", "check-config", "check", "migrate", "sandbox", "demo", "why", "hash-token"):
        assert command in out


def test_help_imports_nothing_that_a_command_needs():
    heavy = "{'aiohttp', 'sqlalchemy', 'alembic', 'lxml', 'pydantic', 'structlog'}"
    program = f"import sys, bridge.cli; print(sorted({heavy} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert loaded.strip() == "[]"


def test_version_is_that_of_the_package(bridge):
    status, out, _ = bridge("--version")

    assert status == 0
    assert out == f"bridge {__version__}\n"


@pytest.mark.usefixtures("config")
def test_the_settings_are_those_of_the_working_folder_unless_a_file_is_named(bridge, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert bridge("check-config") == (
        1,
        "",
        (
            f"bridge.toml: there is no such file in {elsewhere}. Name the settings file with --config or in "
            "BRIDGE_CONFIG, or start with config.example.toml.\n"
        ),
    )
    monkeypatch.chdir(tmp_path)
    status, out, _ = bridge("check-config")
    assert (status, out.partition(" is valid")[0]) == (0, "bridge.toml")


@pytest.mark.parametrize("arguments", [["--config"], ["-c"], []])
@pytest.mark.parametrize("command", ["check-config", "migrate"])
def test_the_settings_file_may_be_named_with_and_without_the_option(bridge, config, command, arguments):
    status, _, err = bridge(command, *arguments, config)
    assert (status, "Error" in err) == (0, False)


# -- check-config ------------------------------------------------------------------------------------------------------


def test_check_config_says_all_that_is_wrong_at_once_each_on_its_line(bridge, tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text(
        '[polling]\ninitial_delay = "soon"\n[server]\nprot = 1\n[[routes]]\nname = "shop"\n', encoding="utf-8"
    )

    status, out, err = bridge("check-config", "--config", path)

    assert status == 1
    assert out == ""
    keys = [line.partition(":")[0] for line in err.splitlines()]
    assert {"polling.initial_delay", "server.prot", "routes[0].project_token"} <= set(keys)


def test_check_config_names_routes_that_can_never_match_and_is_content(bridge, config):
    config.write_text(config.read_text() + '[[routes]]\nname = "late"\nproject_token = "tok-late"\n')

    status, out, err = bridge("check-config", "--config", config)

    assert status == 0
    assert '"late" never matches' in err
    assert out.splitlines() == [f"{config} is valid: 2 routes (shop, late), {len(err.splitlines())} warnings above."]


def test_settings_are_found_by_the_environment_too(bridge, config, monkeypatch):
    monkeypatch.setenv("BRIDGE_CONFIG", str(config))

    status, out, _ = bridge("check-config")

    assert status == 0
    assert "is valid" in out


def test_variables_of_kubernetes_and_of_other_commands_stop_no_command(bridge, config, monkeypatch):
    status, wanted, advice = bridge("check-config", "--config", config)
    assert status == 0
    for name, value in {
        "BRIDGE_SERVICE_PORT": "8080",
        "BRIDGE_PORT_8080_TCP_PORT": "8080",
        "BRIDGE_ADMIN_PORT_8081_TCP_ADDR": "10.0.0.1",
        "BRIDGE_TOKEN": CANARY,
        "BRIDGE_URL": "https://bridge.example.com",
    }.items():
        monkeypatch.setenv(name, value)

    assert bridge("check-config", "--config", config) == (0, wanted, advice)
    with gateway(config):
        status, out, _ = bridge("why", JOB_ID, 7, "--config", config)
    assert (status, JOB_ID in out) == (0, True)


def test_a_variable_similar_to_that_of_a_setting_is_a_warning(bridge, config, monkeypatch):
    monkeypatch.setenv("BRIDGE_SERVER_PORT", "8080")

    status, _, err = bridge("check-config", "--config", config)

    assert status == 0
    assert "BRIDGE_SERVER_PORT: is not used, because it is not a setting. Did you mean BRIDGE_SERVER__PORT?" in err
    with gateway(config) as (_, lines, _):
        assert any("BRIDGE_SERVER_PORT" in line.get("warning", "") for line in lines)


def test_no_command_shows_a_secret(bridge, config):
    for command in ("check-config", "migrate"):
        _, out, err = bridge(command, "--config", config)
        assert CANARY not in out + err


# -- migrate -----------------------------------------------------------------------------------------------------------


def test_migrate_makes_the_ledger_and_may_be_run_again(bridge, config, tmp_path):
    first = bridge("migrate", "--config", config)
    again = bridge("migrate", "--config", config)

    assert first[0] == again[0] == 0
    assert first[1] == again[1] == f"The ledger {tmp_path}/bridge.db is at schema {newest_revision()}.\n"
    assert (tmp_path / "bridge.db").stat().st_mode & 0o007 == 0  # other users cannot read it


def test_migrate_does_not_touch_a_ledger_that_a_gateway_has_open(bridge, config, tmp_path):
    database = SqliteDatabase(tmp_path / "bridge.db", SystemClock())
    try:
        database.lock()
        status, out, err = bridge("migrate", "--config", config)
    finally:
        database.close()

    assert (status, out) == (1, "")
    assert err == (
        f"store.url: another gateway (pid {os.getpid()}) has the ledger {tmp_path}/bridge.db open. "
        "Stop it first, or leave it to the gateway, which migrates its ledger when it starts.\n"
    )


# -- move --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "spools", "complaint"),
    [
        ("sqlite:///{0}/a.db", "sqlite:///{0}/./a.db", (), "--from and --to name the same ledger."),
        ("postgresql://u:one@h/d", "postgresql://u:two@h/d", (), "--from and --to name the same ledger."),
        ("sqlite:///{0}/a.db", "sqlite:///{0}/b.db", ("--from-spool", "{0}/s", "--to-spool", "{0}/s"), "same spool."),
        ("mysql://h/d", "sqlite:///{0}/b.db", (), "--from: write sqlite:///folder/bridge.db or postgresql://"),
        ("sqlite:///{0}/a.db", "b.db", (), "--to: write sqlite:///folder/bridge.db or postgresql://"),
    ],
)
def test_move_rejects_ledgers_and_spools_that_it_cannot_move_between(
    bridge, config, tmp_path, source, target, spools, complaint
):
    places = [text.format(tmp_path) for text in ("--from", source, "--to", target, *spools)]
    code, out, err = bridge("move", *places, "--config", config)

    assert (code, out) == (1, "")
    assert complaint in " ".join(err.split())
    assert list(tmp_path.glob("*.db*")) == []


# -- hash-token --------------------------------------------------------------------------------------------------------


def pipe(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_hash_token_hashes_what_is_piped_in_without_its_line_end(bridge, monkeypatch):
    pipe(monkeypatch, b"tok-caller-1\n")

    assert bridge("hash-token") == (0, f"{hash_token('tok-caller-1')}\n", "")


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b" blank", b"\xff\xfe", b"x" * 300_000])
def test_hash_token_refuses_what_cannot_be_a_token(bridge, monkeypatch, content):
    pipe(monkeypatch, content)

    status, out, err = bridge("hash-token")

    assert (status, out) == (1, "")
    assert err.count(". ") == 1  # what is wrong, and what to do


def test_hash_token_accepts_no_token_as_an_argument(bridge):
    status, out, _ = bridge("hash-token", "tok-caller-1")

    assert (status, out) == (2, "")


# -- serve -------------------------------------------------------------------------------------------------------------


def test_serve_begins_with_every_setting_and_no_secret(config):
    with gateway(config) as (serving, lines, _):
        serving.terminate()
        out, err = serving.communicate(timeout=PATIENCE_SECONDS)

    assert lines[0]["event"] == "gateway_starting"
    assert lines[0]["settings"]["polling.grace_period"] == "10s"
    assert lines[0]["settings"]["routes[0].name"] == "shop"
    assert lines[0]["settings"]["routes[0].project_token"]
    assert CANARY not in json.dumps(lines) + out + err


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serve_drains_and_ends_well_when_it_is_asked_to_stop(config, stop):
    with gateway(config) as (serving, _, _):
        serving.send_signal(stop)
        _, err = serving.communicate(timeout=PATIENCE_SECONDS)

    assert serving.returncode == 0
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "gateway_draining"
    assert events[-1] == "gateway_stopped"


def test_other_users_cannot_read_the_files_of_a_gateway(config, tmp_path):
    config.write_text(config.read_text().replace(f"{tmp_path}/", f"{tmp_path}/data/"), encoding="utf-8")
    with gateway(config) as (_, _, url):
        body = f'--b\r\nContent-Disposition: form-data; name="files"; filename="a.xml"\r\n\r\n{LARGE}\r\n--b--\r\n'
        upload = urllib.request.Request(  # noqa: S310 -- ours
            f"{url}/v1/report/junit/report/upload?job_id={JOB_ID}&build_no=1",
            data=body.encode(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        with urllib.request.urlopen(upload, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 -- ditto
            assert answer.status == 200
        kept = list((tmp_path / "data").rglob("*"))
        assert {"bridge.db", "bridge.db-wal", "spool"} < {path.name for path in kept}
        assert len(kept) >= 6  # an hour of the spool and a blob in it
        assert [path.name for path in kept if path.stat().st_mode & 0o007] == []


def test_serve_ends_at_once_when_it_is_asked_twice(config):
    with gateway(config) as (serving, _, url), hanging_upload(url):
        serving.terminate()
        assert json.loads(serving.stderr.readline())["event"] == "gateway_draining"
        serving.terminate()

        assert serving.wait(timeout=PATIENCE_SECONDS) == -signal.SIGTERM


@contextmanager
def hanging_upload(url):
    """Begin an upload and never end it: a gateway that drains waits for it."""
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/report/junit/report/upload?job_id={JOB_ID}&build_no=1 HTTP/1.1\r\nHost: {host}\r\n"
        "Expect: 100-continue\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n"
    )
    with closing(socket.create_connection((host, int(port)))) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # it is under way
        yield


def test_serve_tells_in_a_sentence_that_its_ledger_is_taken(config, tmp_path):
    database = SqliteDatabase(tmp_path / "bridge.db", SystemClock())
    try:
        database.lock()
        with process("serve", "--config", config) as serving:
            _, err = serving.communicate(timeout=PATIENCE_SECONDS)
    finally:
        database.close()

    assert serving.returncode == 1
    assert err.splitlines()[-1] == (
        f"store.url: another gateway (pid {os.getpid()}) has the ledger {tmp_path}/bridge.db open. "
        "Stop it first, or give this gateway a separate store.url."
    )
    assert "Traceback" not in err


def test_serve_tells_in_a_sentence_that_its_ledger_cannot_be_read(config, tmp_path):
    (tmp_path / "bridge.db").write_bytes(b"no ledger" * 1000)
    with process("serve", "--config", config) as serving:
        _, err = serving.communicate(timeout=PATIENCE_SECONDS)

    assert serving.returncode == 1
    assert "cannot be opened: file is not a database. Look at its disk" in " ".join(err.split())
    assert "Traceback" not in err


def test_serve_tells_in_a_sentence_that_its_port_is_taken(config, monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("BRIDGE_SERVER__PORT", str(port))
        with process("serve", "--config", config) as serving:
            _, err = serving.communicate(timeout=PATIENCE_SECONDS)

    assert serving.returncode == 1
    assert err.splitlines()[-1] == (
        f"server.port: {port} on 127.0.0.1 is in use by another program. "
        "Stop that program (`ss -ltnp` lists it), or change server.port."
    )
    assert "Traceback" not in err


NOT_OURS = "192.0.2.1"  # https://www.rfc-editor.org/rfc/rfc5737: for documentation, so no machine has it


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"BRIDGE_ADMIN__HOST": NOT_OURS, "BRIDGE_ADMIN__TOKEN": CANARY},
            (
                f"admin.host: {NOT_OURS} is not an address of this machine. "
                'Use one that `ip address` lists, or "0.0.0.0" for all of them.'
            ),
        ),
        (
            {"BRIDGE_STORE__SPOOL": "{folder}/file"},
            "store.spool: {folder}/file is a file, not a folder. Move it away, or use another path.",
        ),
        (
            {"BRIDGE_STORE__ARCHIVE": "{folder}/file/archive"},
            "store.archive: {folder}/file is a file, not a folder. Move it away, or use another path.",
        ),
        (
            {"BRIDGE_STORE__URL": "sqlite:///{folder}/file/bridge.db"},
            "store.url: {folder}/file is a file, not a folder. Move it away, or use another path.",
        ),
        (
            {"BRIDGE_STORE__URL": "sqlite:///{folder}/folder"},
            "store.url: {folder}/folder is a folder, not a file. Name a file in it.",
        ),
        (
            {"BRIDGE_STORE__URL": "sqlite:///{folder}/other.db"},
            (
                "store.url: {folder}/other.db is a database of another program (its tables: alembic_version, users). "
                "Name another file, which is created at the first start."
            ),
        ),
    ],
    ids=["address", "spool", "archive", "ledger folder", "ledger file", "other database"],
)
def test_serve_blames_a_start_that_fails_on_a_setting(config, tmp_path, monkeypatch, variables, problem):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE users (name)")
        other.execute("CREATE TABLE alembic_version (version_num)")
        other.commit()
    before = (tmp_path / "other.db").read_bytes()
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))

    with process("serve", "--config", config) as serving:
        _, err = serving.communicate(timeout=PATIENCE_SECONDS)

    assert serving.returncode == 1
    assert err.splitlines()[-1] == problem.format(folder=tmp_path)
    assert "Traceback" not in err
    assert (tmp_path / "other.db").read_bytes() == before


@pytest.mark.parametrize("command", ["migrate", "why", "backup"])
def test_no_command_touches_a_database_of_another_program(bridge, config, tmp_path, monkeypatch, command):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE users (name)")
        other.commit()
    before = (tmp_path / "other.db").read_bytes()
    monkeypatch.setenv("BRIDGE_STORE__URL", f"sqlite:///{tmp_path}/other.db")
    arguments = {"why": [JOB_ID, 7], "backup": [tmp_path / "copy"]}.get(command, [])

    status, out, err = bridge(command, *arguments, "--config", config)

    assert (status, out) == (1, "")
    assert "is a database of another program (its tables: users)" in err
    assert (tmp_path / "other.db").read_bytes() == before


def test_serve_logs_that_it_listens_but_accepts_no_upload(config, monkeypatch):
    monkeypatch.setenv("BRIDGE_STORE__MIN_FREE_SPACE", "900 TiB")
    with process("serve", "--config", config) as serving:
        events = (json.loads(line) for line in serving.stderr)
        event = next(line for line in events if line["event"] == "uploads_suspended")

    assert event["level"] == "warning"
    assert "store.min_free_space" in event["reasons"][0]


def test_serve_in_a_terminal_drains_when_the_terminal_is_closed(config):
    process_id, terminal = pty.fork()
    if process_id == 0:
        os.execv(sys.executable, [sys.executable, "-m", "bridge", "serve", "-c", str(config)])  # noqa: S606 -- ours
    written = b""
    while b"gateway_listening" not in written:
        written += os.read(terminal, 65_536)
    os.close(terminal)

    _, status = os.waitpid(process_id, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    # The ledger was closed in order: its write-ahead log is gone.
    assert not config.with_name("bridge.db-wal").exists()


# -- why ---------------------------------------------------------------------------------------------------------------


def test_why_asks_the_gateway_that_runs(bridge, config):
    with gateway(config):
        status, out, err = bridge("why", JOB_ID, 7, "--config", config)

    assert (status, err) == (0, "")
    assert out.startswith(f"Status: No report of build 7 of job {JOB_ID} was ever uploaded to the bridge.\n")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["Status", "Cause", "Action"]


def test_why_shows_the_gateway_its_token(bridge, config, monkeypatch):
    monkeypatch.setenv("BRIDGE_ADMIN__TOKEN", "tok-admin-1")
    with gateway(config):
        status, out, _ = bridge("why", JOB_ID, 7, "--config", config)
        monkeypatch.setenv("BRIDGE_ADMIN__TOKEN", "tok-wrong-1")
        refused_status, refused_out, refused_err = bridge("why", JOB_ID, 7, "--config", config)

    assert status == 0
    assert JOB_ID in out
    assert (refused_status, refused_out) == (1, "")
    assert "token" in refused_err


def test_why_reads_the_ledger_if_no_gateway_runs_and_states_it(bridge, config):
    with gateway(config) as (serving, _, url):
        upload(url, b"<testsuite name='s' tests='1'><testcase name='c' classname='k'/></testsuite>")
        serving.terminate()
        serving.wait(timeout=PATIENCE_SECONDS)

    status, out, err = bridge("why", JOB_ID, 7, "--config", config)

    assert status == 0
    assert "No gateway answers at http://127.0.0.1:" in err
    assert "has been pending for" in out


def test_why_refuses_what_is_no_build_in_the_words_of_the_upload(bridge, config):
    for job_id, build_no, says in (
        (JOB_ID, "20240626.1", 'build_no is "20240626.1", which is BUILDNUMBER. Use INCREASENUM,'),
        ("shop", "7", 'job_id is "shop", not 32 digits and letters.'),
    ):
        status, out, err = bridge("why", job_id, build_no, "--config", config)

        assert (status, out) == (2, "")
        assert says in " ".join(err.replace("│", " ").split())


def test_why_reports_that_there_is_neither_gateway_nor_ledger(bridge, config, tmp_path):
    status, out, err = bridge("why", JOB_ID, 7, "--config", config)

    assert (status, out) == (1, "")
    assert f"There is no ledger at {tmp_path}/bridge.db" in err
    assert not (tmp_path / "bridge.db").exists()


def upload(url, body):
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="r.xml"\r\n\r\n' + body + b"\r\n--b--\r\n"
    request = urllib.request.Request(  # noqa: S310  # the gateway's own address
        f"{url}/v1/report/junit/report/upload?job_id={JOB_ID}&build_no=7",
        data=form,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
        assert answer.status == 200


# -- sandbox -----------------------------------------------------------------------------------------------------------


def sandbox_ports(**taken):
    """Return options that place every service of the sandbox: on a port of its own choice, or on one that is taken."""
    services = [name for name in inspect.signature(cli.sandbox).parameters if name.endswith("_port")]
    return [f"--{service.replace('_', '-')}={taken.get(service, 0)}" for service in services]


def test_sandbox_prints_its_addresses_and_exits_with_0():
    with process("sandbox", *sandbox_ports()) as running:
        control = next(line.split()[1] for line in running.stdout if line.startswith("Control "))
        with urllib.request.urlopen(f"{control}/runs", timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            runs = json.load(answer)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_SECONDS)

    assert runs == {"runs": []}
    assert running.returncode == 0


def test_sandbox_limits_calls_as_its_options_have_it():
    limits = ("--calls-per-minute=50", "--calls-per-minute=codearts.build_info=0")
    with process("sandbox", *sandbox_ports(), *limits) as running:
        codearts = next(line.split()[1] for line in running.stdout if line.startswith("CodeArts "))
        statuses = [
            _status(f"{codearts}{path}")
            for path in ("/v1/job/a/1/build-info", "/v1/job/p/list?page_index=0&page_size=1")
        ]
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_SECONDS)

    assert statuses == [429, 200]


def _status(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [("many", "not a number"), ("codearts.x=5", "calls_per_minute"), ("s3.put=5", "calls_per_minute")],
)
def test_sandbox_rejects_a_limit_that_makes_no_sense(bridge, limit, complaint):
    status, _, err = bridge("sandbox", f"--calls-per-minute={limit}")
    assert status == 2
    assert complaint in err


def test_sandbox_tells_in_a_sentence_that_a_port_is_taken(bridge):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        status, _, err = bridge("sandbox", *sandbox_ports(iam_port=port))

    assert status == 1
    assert err.startswith(f"Port {port} on 127.0.0.1 is in use by another program. ")


@pytest.mark.parametrize(
    ("spool", "remedy"),
    [
        ("{folder}/spool", "copy the folder {folder}/spool before and after it"),
        ("s3://bucket/p", "keep versions of s3://bucket/p"),
    ],
)
def test_backup_of_a_postgresql_ledger_is_rejected_with_the_alternative(config, bridge, tmp_path, spool, remedy):
    spool, remedy = (text.format(folder=tmp_path) for text in (spool, remedy))
    _keep_in(config, tmp_path, url="postgresql://bridge@db.example/bridge", spool=spool)
    code, out, err = bridge("backup", tmp_path / "copy", "--config", config)
    assert (code, out) == (1, "")
    assert f"Use pg_dump, {remedy}, and start a restored ledger with `bridge serve --paused`." in " ".join(err.split())
    assert not (tmp_path / "copy").exists()


def test_backup_of_a_ledger_whose_spool_is_in_s3_says_what_it_left_out(config, bridge, tmp_path):
    assert bridge("migrate", "--config", config)[0] == 0
    _keep_in(config, tmp_path, url=f"sqlite:///{tmp_path}/bridge.db", spool="s3://bucket/p")
    code, out, _ = bridge("backup", tmp_path / "copy", "--config", config)
    assert code == 0
    assert "The spool is in s3://bucket/p and was not copied. Keep its objects." in " ".join(out.split())
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["bridge.db"]


def test_backup_without_a_ledger_says_so_and_leaves_nothing(config, bridge, tmp_path):
    code, _, err = bridge("backup", tmp_path / "copy", "--config", config)
    assert (code, "There is no ledger" in err) == (1, True)
    assert not list(tmp_path.glob("copy*"))


def _keep_in(config, folder, *, url, spool):
    text = config.read_text(encoding="utf-8")
    text = text.replace(f"sqlite:///{folder}/bridge.db", url).replace(f'"{folder}/spool"', f'"{spool}"')
    keys = f'endpoint_url = "{REFUSED_URL}"\naccess_key_id = "k"\nsecret_access_key = "s"\n'
    config.write_text(f"{text}[s3]\n{keys}" if spool.startswith("s3:") else text, encoding="utf-8")
