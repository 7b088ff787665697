"""A collector of traces that reads each request of OTLP over HTTP and answers 200: `collector.py PORT`."""

import sys

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(content_type="application/x-protobuf")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/traces", take)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
