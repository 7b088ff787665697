from urllib.parse import urlsplit

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.ports import held_port


async def test_each_service_has_its_own_port(sandbox):
    urls = [sandbox.codearts_url, sandbox.testnod_url, sandbox.s3_url, sandbox.control_url]
    assert len({urlsplit(url).port for url in urls}) == 4
    assert {urlsplit(url).hostname for url in urls} == {"127.0.0.1"}


async def test_a_port_that_was_asked_for_is_taken_and_free_again_afterwards():
    with held_port() as port:
        for _ in range(2):
            async with Sandbox(control_port=port) as sandbox:
                assert urlsplit(sandbox.control_url).port == port


async def test_a_port_in_use_opens_nothing():
    async with Sandbox() as first:
        taken = urlsplit(first.s3_url).port
        with pytest.raises(OSError, match="in use"):
            async with Sandbox(s3_port=taken):
                pass
