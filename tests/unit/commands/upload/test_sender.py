"""The request that states that a build is complete: it goes last, and only if the same files need not come again."""

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from bridge.commands.upload.batches import Batch, Part
from bridge.commands.upload.gateway_client import Answer, GatewayClient
from bridge.commands.upload.sender import RequestOutcome, Result, Sender
from bridge.errors import BadParameter, BadReport, Forbidden, NoRoute, TooLarge

BUILD = {"job_id": "a" * 32, "build_no": "7"}


class Gateway:
    """Answers each request with files of a node as `answers` has it, and accepts all others."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self.completed = 0

    def post(self, query: Mapping[str, str], _body: Any, _headers: Any, *, deadline: float) -> Answer:
        assert deadline > time.monotonic()
        self.completed += "complete" in query
        accepted = Answer(status=200, content={"status": "success"})
        return self.answers.get(query.get("node_id", ""), accepted)

    @staticmethod
    def without_token(text: str) -> str:
        return text


def rejection(status: int, code: str) -> Answer:
    return Answer(status=status, content={"status": "fail", "error_code": code, "error_msg": "No."})


def send(gateway: Gateway, path: str) -> list[Result]:
    nodes = ("linux", "windows")
    part = Part(name="a.xml", path=path, size=12)
    batches = [Batch(parameters={**BUILD, "node_id": node}, parts=[part]) for node in nodes]
    sender = Sender(client=cast(GatewayClient, gateway), deadline=time.monotonic() + 600, note=lambda _: None)
    return sender.send([*batches, Batch(parameters=BUILD, parts=(), complete=True)])


@pytest.fixture
def path(tmp_path: Any) -> str:
    file = tmp_path / "a.xml"
    file.write_text("<testsuite/>")
    return str(file)


@pytest.mark.parametrize("error", [BadParameter, BadReport, NoRoute, TooLarge])
def test_a_build_is_complete_without_the_files_of_a_request_that_was_rejected(error: Any, path: str) -> None:
    gateway = Gateway({"linux": rejection(error.status, error.code)})

    *_, completing = send(gateway, path)

    assert (completing.batch.complete, completing.outcome) == (True, RequestOutcome.ANSWERED)
    assert gateway.completed == 1


def test_a_build_is_not_complete_while_its_files_may_still_be_taken(path: str) -> None:
    gateway = Gateway({"linux": rejection(403, Forbidden.code)})

    *_, completing = send(gateway, path)

    assert (completing.batch.complete, completing.outcome) == (True, RequestOutcome.AWAY)
    assert gateway.completed == 0
