"""Secrets that are put into settings and searched for afterwards: each one that is found was leaked."""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from bridge.domain.callers import hash_token
from bridge.sandbox.state import SandboxState
from tests.support.ports import REFUSED_URL
from tests.support.writings import WRITINGS

CANARIES = {
    "admin.token": "canary-admin-token-77c0",
    "admin.viewer_token": "canary-viewer-token-5e21",
    "s3.access_key_id": "CANARYS3KEYID3D1",
    "s3.secret_access_key": "canary-s3-secret-55aa",
    "outbound.http_proxy": "canary-proxy-password-8d2f",
    "webhook.secret": "canary-hook-secret-e19b",
    "codearts.access_key": "CANARYACCESSKEY9",
    "codearts.secret_key": "canary-codearts-secret-b0b0",
    "codearts.password": "canary-codearts-password-41c",
    "codearts.token": "canary-codearts-token-0f52",
    "callers.tokens.token": "canary-caller-token-3b1e",
    "callers.tokens.hash": "canary-hashed-token-6e6e",
    "callers.keys.access_key": "CANARYCALLERKEY7",
    "callers.keys.secret_key": "canary-caller-secret-2a9d",
    "notices.url": "canary-webhook-url-c63e",
    "notices.secret": "canary-webhook-secret-90ab",
    "routes.project_token": "canary-project-token-91ad",
}
ADMIN, CALLER, PROJECT = CANARIES["admin.token"], CANARIES["callers.tokens.token"], CANARIES["routes.project_token"]
SIGNED = re.compile(r"X-Amz-Signature=\w.{20}")


def plant(settings: dict[str, Any], world: SandboxState) -> None:
    """Put a canary into every secret of `settings` and of `world`. CI uploads as CALLER."""
    world.runs.open_project(PROJECT, "canary")
    world.behavior = world.behavior.changed({"codearts_tokens": [CANARIES["codearts.token"]]})
    proxy = f"http://someone:{CANARIES['outbound.http_proxy']}@{urlsplit(REFUSED_URL).netloc}"
    settings["admin"] |= {"token": [ADMIN], "viewer_token": [CANARIES["admin.viewer_token"]]}
    settings["s3"] = _of("s3")
    settings["webhook"] = _of("webhook")
    settings["outbound"] = {"http_proxy": proxy, "no_proxy": ["127.0.0.1"]}
    settings["codearts"] |= {"auth": "token", "user": "u", "domain": "d", **_of("codearts")}
    settings["callers"] = {"auth": ["token", "aksk"]}
    settings["callers.tokens"] = [
        {"name": "ci", "token": CALLER, "scopes": ["upload", "status"]},
        {"name": "hashed", "hash": hash_token(CANARIES["callers.tokens.hash"])},
    ]
    settings["callers.keys"] = [{"name": "signer", **_of("callers.keys")}]
    settings["routes"][0]["project_token"] = PROJECT
    settings["notices"] = [
        {
            "url": f"{REFUSED_URL}/robot/send?access_token={CANARIES['notices.url']}",
            "format": "dingtalk",
            "secret": CANARIES["notices.secret"],
        }
    ]


def _of(table: str) -> dict[str, str]:
    return {key.rpartition(".")[2]: text for key, text in CANARIES.items() if key.rpartition(".")[0] == table}


def leaks(texts: Iterable[str], *others: str) -> list[str]:
    """Return the canaries, the `others` and the signatures of presigned URLs that are in any of `texts`.

    Canaries count in every form of WRITINGS.
    """
    found = []
    forms = {(name, write(secret)) for secret in CANARIES.values() for name, write in WRITINGS.items()}
    for text in texts:
        found += [f"{secret}, {name}" for name, secret in forms if secret in text]
        found += [secret for secret in others if secret in text]
        found += SIGNED.findall(text)
    return found
