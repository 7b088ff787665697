import io
import json
import logging
import warnings

import pytest
import structlog

import bridge
from bridge.telemetry import logs

CANARY = "canary-4711"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stream(restored):  # noqa: ARG001 - a fixture is used by standing here
    stream = io.StringIO()
    logs.set_up(stream=stream, instance="node/1/a")
    return stream


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_is_one_line_of_json(stream):
    structlog.get_logger("bridge.test").info("report accepted", size=3, name="a\nb")
    (line,) = lines(stream)
    assert line.pop("at").endswith("Z")
    assert line.pop("version") == bridge.__version__
    assert line.pop("instance") == "node/1/a"
    assert line == {"event": "report accepted", "level": "info", "size": 3, "name": "a\\nb"}


def test_the_standard_librarys_loggers_go_the_same_way(stream):
    logging.getLogger("aiohttp.server").error("failed with %s", f"Project-Token: {CANARY}")
    (line,) = lines(stream)
    assert line["event"] == "failed with Project-Token: [redacted]"
    assert (line["logger"], line["level"]) == ("aiohttp.server", "error")


def test_an_exception_is_one_line_without_secrets(stream):
    url = f"https://s3.example/k?X-Amz-Signature={CANARY}"
    try:
        int(url)
    except ValueError:
        structlog.get_logger().exception("put failed")
    (line,) = lines(stream)
    assert "ValueError" in line["exception"]
    assert CANARY not in stream.getvalue()


def test_registered_secrets_never_appear(stream):
    logs.redact_values([CANARY])
    structlog.get_logger().info(f"event {CANARY}", value={"deep": [CANARY]}, **{f"key-{CANARY}": 1})
    logging.getLogger("x").warning("%r", {"a": CANARY})
    assert len(lines(stream)) == 2
    assert CANARY not in stream.getvalue()


def test_a_request_id_bound_to_the_task_is_on_its_lines(stream):
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger().info("x")
    assert lines(stream)[0]["request_id"] == "abc"


def test_lines_below_the_level_and_access_lines_are_left_out(stream):
    structlog.get_logger().debug("x")
    logging.getLogger("aiohttp.access").info("GET /")
    assert stream.getvalue() == ""


def test_warnings_are_lines_too(stream):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("unclosed thing", ResourceWarning, stacklevel=1)
    assert "unclosed thing" in lines(stream)[0]["event"]


def test_setting_up_again_writes_each_event_once(stream):
    logs.set_up(stream=stream)
    structlog.get_logger().info("x")
    assert len(lines(stream)) == 1


@pytest.mark.usefixtures("restored")
def test_a_terminal_gets_text_on_one_line():
    terminal = Terminal()
    logs.set_up(stream=terminal)
    structlog.get_logger().info("report\naccepted", token=CANARY)
    assert "report\\naccepted" in terminal.getvalue()
    assert len(terminal.getvalue().splitlines()) == 1
    assert CANARY not in terminal.getvalue()


def test_a_logger_that_was_used_before_follows_a_new_level_and_a_new_format(stream):
    used = structlog.get_logger("bridge.test")
    used.info("x")
    logs.choose(level="warning")
    used.info("y")
    logging.getLogger("aiohttp.server").info("y")
    used.warning("z")
    logs.choose(level="debug", style="console")
    used.debug("as text")
    *rows, text = stream.getvalue().splitlines()
    assert [json.loads(row)["event"] for row in rows] == ["x", "z"]
    assert "as text" in text
    assert not text.startswith("{")


def test_json_may_be_chosen_for_a_terminal(restored):  # noqa: ARG001
    terminal = Terminal()
    logs.set_up(stream=terminal)
    logs.choose(level="info", style="json")
    structlog.get_logger().info("x")
    assert lines(terminal)[0]["event"] == "x"


def test_lines_of_the_standard_library_have_version_and_instance_too(stream):
    logging.getLogger("asyncio").error("x")
    assert (lines(stream)[0]["version"], lines(stream)[0]["instance"]) == (bridge.__version__, "node/1/a")
