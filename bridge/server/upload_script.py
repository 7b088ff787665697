"""GET /upload.sh: a script for build steps that uploads with curl, for machines without Python.

It is the same for every caller and needs no token. docs/upload.md has its digest.
"""

from hashlib import sha256
from importlib.resources import files
from typing import Final

from aiohttp import ETag, web

UPLOAD_SCRIPT_PATH: Final = "/upload.sh"


def read_upload_script() -> bytes:
    """Return the script."""
    return (files("bridge.server") / "upload.sh").read_bytes()


class UploadScriptHandler:
    """Answers GET UPLOAD_SCRIPT_PATH. The ETag is the digest of the script."""

    def __init__(self) -> None:
        self._script = read_upload_script()
        self._digest = sha256(self._script).hexdigest()

    async def show(self, request: web.Request) -> web.Response:
        """Return the script, or 304 if the client has it."""
        known = {tag.value for tag in request.if_none_match or ()}
        if known & {self._digest, "*"}:
            response = web.Response(status=304)
        else:
            response = web.Response(body=self._script, content_type="text/x-shellscript", charset="utf-8")
        response.etag = ETag(self._digest)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
