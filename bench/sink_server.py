"""A bare aiohttp server that only reads the body: the upper limit of the gateway's HTTP library."""

import sys

from aiohttp import web

MAX_BODY_BYTES = 1 << 20  # of reports of 20 KB


async def upload(request: web.Request) -> web.Response:
    """Respond in the format of the upload's reference page."""
    body = await request.read()
    return web.json_response({"status": "success", "result": f"{len(body)} bytes", "error": None})


if __name__ == "__main__":
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v1/report/junit/report/upload", upload)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
