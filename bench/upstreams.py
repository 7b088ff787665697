"""Stand-ins of TestNod, its storage and CodeArts in one process, as cheap as aiohttp allows.

Every build has ended as soon as `GET /expect?reports=` of its reports are registered, one unless told otherwise: CI
ends a build after its uploads. Lists have the builds that a run was opened for.
`GET /finalized` returns how many runs were finalized with all their reports and when the last one was, and how many
reports were stored.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import parse_qs

from aiohttp import web

EXPIRY = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20300101T000000Z&X-Amz-Expires=300&X-Amz-Signature=0"


class Upstreams:
    """Answers every call at once, or after `delay` seconds."""

    def __init__(self, port: int, delay: float) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._delay = delay
        self._ids = itertools.count(1)
        self._runs: dict[str, int] = {}
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)  # of the builds of each job
        self._registered: defaultdict[tuple[str, int], int] = defaultdict(int)  # by job and number
        self._expected = 1
        self._stored: defaultdict[int, int] = defaultdict(int)
        self._finalized: set[str] = set()
        self._finalized_at = 0.0  # the last one's call, in seconds since the epoch
        self._calls: defaultdict[str, int] = defaultdict(int)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Dispatch by path."""
        path = request.path
        if path == "/finalized":
            runs, stored = len(self._finalized), sum(self._stored.values())
            counts = {"runs": runs, "stored": stored, "at": self._finalized_at, "calls": dict(self._calls)}
            return web.json_response(counts)
        if path == "/expect":
            self._expected = int(request.query["reports"])
            return web.Response()
        body, came_at = await request.read(), time.time()
        if self._delay:
            await asyncio.sleep(self._delay)
        name = path.rpartition("/")[2]
        self._calls["put" if request.method == "PUT" else name] += 1
        if request.method == "PUT":
            self._stored[int(path.split("/")[2])] += 1
            return web.Response()
        if name == "upload":
            return self._register(body)
        if name == "finalize":
            build_id = parse_qs(body.decode())["build_id"][0]
            if build_id not in self._runs:
                return _json({"error_message": "Test run not found for this build_id."}, 404)
            self._finalized.add(build_id)
            self._finalized_at = came_at
            return _json({"status": "processing"})
        return self._codearts(name, path, request.query)

    def _codearts(self, name: str, path: str, query: Mapping[str, str]) -> web.Response:
        if name == "build-info":
            _, job_id, number, _ = path.rsplit("/", 3)
            is_building = not self._has_ended(job_id, int(number))
            result = {"building": is_building, "build_result": None if is_building else "SUCCESS"}
            return _json({"status": "success", "error": None, "result": result})
        if name == "record-info":
            record = {"status": "SUCCESS", "branch": "main", "commit": "0" * 40, "repo_name": "shop"}
            return _json({"status": "success", "result": record})
        if name == "list" and path.startswith("/v1/record/"):
            return self._list_builds(path.split("/")[3], query)
        return _json({"error_message": "not here"}, 404)

    def _has_ended(self, job_id: str, number: int) -> bool:
        return self._registered[job_id, number] >= self._expected

    def _list_builds(self, job_id: str, query: Mapping[str, str]) -> web.Response:
        page, size = int(query["page_index"]), int(query["page_size"])
        numbers = self._numbers[job_id]
        shown = sorted(numbers, reverse=True)[page * size : (page + 1) * size]
        builds = [
            {"number": number, "job_running_status": "Finished", "state": "SUCCESS"}
            if self._has_ended(job_id, number)
            else {"number": number, "job_running_status": "Running", "state": None}
            for number in shown
        ]
        result = {"total_page": str(-(-len(numbers) // size)), "page_index": str(page), "job_build_states": builds}
        return _json({"status": "success", "error": None, "result": result})

    def _register(self, body: bytes) -> web.Response:
        _, _, rest = body.partition(b'name="test_run[metadata][build_id]"\r\n\r\n')
        build_id = rest.partition(b"\r\n")[0].decode()
        job_id, number = build_id.split("-")[-2:]  # the naive bridge has no prefix
        self._registered[job_id, int(number)] += 1
        if build_id not in self._runs:
            self._numbers[job_id].append(int(number))
        run = self._runs.setdefault(build_id, len(self._runs) + 1)
        upload = next(self._ids)
        answer = {
            "id": upload,
            "project_id": "b7e2c1a0-9f3d-4a8b-bc1e-2d4f6a8c0e11",
            "test_run_id": run,
            "upload_id": upload,
            "test_run_url": f"{self._url}/projects/1/test_runs/{run}",
            "presigned_url": f"{self._url}/storage/{run}/{upload}?{EXPIRY}",
        }
        return _json(answer, 201)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")


async def serve(port: int, delay: float) -> None:
    """Serve until the process is ended."""
    runner = web.ServerRunner(web.Server(Upstreams(port, delay).answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
