"""A stand-in for the webhooks of notices: it accepts what the vendors' pages describe, and answers the rest as they do.

It shares no code with the bridge, so that it cannot share its mistakes.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "canary-webhook-key-5f1c77"
SECRET = "SEC0123456789abcdef"
HOUR_SECONDS = 3600
PATHS = {
    "json": "/hooks/",
    "slack": "/services/T00000000/B00000000/",
    "feishu": "/open-apis/bot/v2/hook/",
    "dingtalk": "/robot/send?access_token=",
    "wecom": "/cgi-bin/webhook/send?key=",
}


@dataclass
class Received:
    """One request that was accepted."""

    headers: dict[str, str]
    content: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def text(self) -> str:
        """All texts of the message, in the order in which people see them."""
        return "\n".join(_texts(self.content))


@dataclass
class WebhookReceiver:
    """Listens on a free port. `script` answers instead of the stand-in's own rules, one entry for each request."""

    format: str = "json"
    secret: str = ""
    key: str = KEY
    now: Callable[[], float] = time.time
    received: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # why requests were rejected
    script: list[Callable[[web.Request], Any]] = field(default_factory=list)
    requests: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(app)
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        """The address that a user would copy from the vendor's page."""
        return f"http://127.0.0.1:{self._server.port}{PATHS[self.format]}{self.key}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.script:
            answer = self.script.pop(0)(request)
            return await answer if asyncio.iscoroutine(answer) else answer
        body = await request.read()
        try:
            content = json.loads(body.decode("utf-8"))
            assert request.method == "POST", "not a POST"
            assert request.content_type == "application/json", "not JSON"
            assert request.path_qs.startswith(PATHS[self.format] + self.key), "another path"
            getattr(self, f"_check_{self.format}")(request, content, body)
        except (AssertionError, ValueError, KeyError) as error:
            self.faults.append(repr(error))
            return self._rejection(repr(error))
        self.received.append(Received(headers=dict(request.headers), content=content))
        return self._success()

    def _success(self) -> web.Response:
        match self.format:
            case "json":
                return web.Response(status=204)
            case "slack":
                return web.Response(text="ok")
            case "feishu":
                return web.json_response({"code": 0, "data": {}, "msg": "success"})
        return web.json_response({"errcode": 0, "errmsg": "ok"})

    def _rejection(self, reason: str) -> web.Response:
        match self.format:
            case "json":
                return web.Response(status=400, text=reason)
            case "slack":
                return web.Response(status=400, text="invalid_payload")
            case "feishu":
                return web.json_response({"code": 19021, "data": {}, "msg": reason})
        return web.json_response({"errcode": 310000, "errmsg": reason})

    def _is_recent(self, seconds: float) -> bool:
        return abs(self.now() - seconds) < HOUR_SECONDS

    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    def _check_json(self, request: web.Request, content: dict[str, Any], body: bytes) -> None:
        id_, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        assert "." not in id_, "a dot in the id"
        assert self._is_recent(int(timestamp)), "an old timestamp"
        assert set(content) == {"type", "timestamp", "data"}, "other members"
        if not self.secret:
            assert "webhook-signature" not in request.headers
            return
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest())
        assert request.headers["webhook-signature"].split(" ") == [f"v1,{expected.decode()}"], "another signature"

    # https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, https://docs.slack.dev/reference/block-kit/blocks
    def _check_slack(self, _request: web.Request, content: dict[str, Any], body: bytes) -> None:
        assert len(body) < 40_000
        assert isinstance(content["text"], str)
        assert not any(mark in content["text"] for mark in "<>"), "not escaped"
        assert 0 < len(content["blocks"]) <= 50
        for block in content["blocks"]:
            match block["type"]:
                case "header":
                    assert block["text"]["type"] == "plain_text"
                    assert len(block["text"]["text"]) <= 150
                case "section":
                    assert 0 < len(block["text"]["text"]) <= 3000
                case "context":
                    assert 0 < len(block["elements"]) <= 10
                case other:
                    raise AssertionError(other)

    # https://open.dingtalk.com/document/robots/custom-robot-access
    def _check_dingtalk(self, request: web.Request, content: dict[str, Any], body: bytes) -> None:
        assert len(body) <= 20_000
        assert content["msgtype"] == "text"
        assert content["text"]["content"]
        assert not content.get("at", {}).get("isAtAll")
        assert not content.get("at", {}).get("atMobiles")
        if self.secret:
            timestamp = request.query["timestamp"]
            assert self._is_recent(int(timestamp) / 1000), "an old timestamp"
            text = f"{timestamp}\n{self.secret}".encode()
            expected = base64.b64encode(hmac.new(self.secret.encode(), text, hashlib.sha256).digest()).decode()
            assert request.query["sign"] == expected, "another signature"

    # https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
    def _check_feishu(self, _request: web.Request, content: dict[str, Any], body: bytes) -> None:
        assert len(body) <= 20 * 1024
        assert content["msg_type"] == "post"
        posts = content["content"]["post"]
        assert set(posts) <= {"zh_cn", "en_us", "ja_jp"}
        for post in posts.values():
            for row in post["content"]:
                for element in row:
                    assert element["tag"] in ("text", "a"), element
        if self.secret:
            assert self._is_recent(int(content["timestamp"])), "an old timestamp"
            key = f"{content['timestamp']}\n{self.secret}".encode()
            expected = base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()
            assert content["sign"] == expected, "another signature"

    # https://developer.work.weixin.qq.com/document/path/91770
    def _check_wecom(self, _request: web.Request, content: dict[str, Any], _body: bytes) -> None:
        assert content["msgtype"] == "text"
        assert set(content["text"]) == {"content"}, "it mentions a person"
        assert 0 < len(content["text"]["content"].encode()) <= 2048
        assert "<@" not in content["text"]["content"], "it mentions a person"


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [text for item in value for text in _texts(item)] if isinstance(value, (list, type({}.values()))) else []
