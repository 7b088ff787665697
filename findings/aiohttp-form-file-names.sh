#!/usr/bin/env bash
# aiohttp 3.14.5 as client and as server, beside requests 2.34.2 as client.
#
# A form has a file whose name is not ASCII, or has a blank. aiohttp sends it to aiohttp's own server; requests sends the
# same form to it.
#
# Expected: the server's handler reads the name that the client was given. RFC 7578, section 4.2, and the HTML standard
#           write such a name as it is, in UTF-8, and escape only quotes and line ends as %22, %0D and %0A.
# Seen: aiohttp's client percent-encodes every byte but letters, digits and "_.-~" (`quote_fields`, on by default), and
#       its server does not decode that: the handler gets "%E6%B5%8B%20a.xml". From requests it gets "测 a.xml". So the
#       same file has two names, and a server cannot tell them apart from a file that really has such a name.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5 requests==2.34.2
"$folder/venv/bin/python" - <<'PY'
import asyncio

import aiohttp
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer

NAME = "测 a.xml"


async def show_name(request):
    return web.Response(text=(await request.post())["files"].filename)


async def main():
    app = web.Application()
    app.router.add_post("/", show_name)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = server.make_url("/")

        async def received(**options):
            form = aiohttp.FormData(**options)
            form.add_field("files", b"<testsuite/>", filename=NAME)
            async with session.post(url, data=form) as answer:
                return await answer.text()

        other = await asyncio.to_thread(requests.post, str(url), files={"files": (NAME, b"<testsuite/>")}, timeout=60)
        seen = await received(), await received(quote_fields=False), other.text
        print(seen)
        assert seen == ("%E6%B5%8B%20a.xml", NAME, NAME), f"changed: {seen}"
        print("as described: aiohttp's client encodes the name, and its server does not decode it")


asyncio.run(main())
PY
