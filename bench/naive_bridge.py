"""What most would write in an afternoon: FastAPI, SQLAlchemy on aiosqlite, a commit a request, a task a report.

Durable (WAL, synchronous=FULL) and without any other promise of the gateway: no leases, breakers, limits or logs.
"""

import asyncio
import hashlib
import sys
import xml.etree.ElementTree as ET

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import LargeBinary, event, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The naive bridge's tables."""


class Report(Base):
    """One file."""

    __tablename__ = "reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    build: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    sha256: Mapped[str]
    tests: Mapped[int]
    state: Mapped[str] = mapped_column(default="pending")
    upload_id: Mapped[int | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


class Build(Base):
    """One build."""

    __tablename__ = "builds"
    key: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="open")


class NaiveBridge:
    """Accepts, registers, uploads, polls and finalizes; without an upstream it only accepts."""

    def __init__(self, path: str, upstream: str, token: str) -> None:
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(self.engine.sync_engine, "connect", _durable)
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)
        self.upstream = upstream
        self.headers = {"Project-Token": token}
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Create the tables."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        self.http = aiohttp.ClientSession()

    async def accept(self, job_id: str, build_no: str, request: Request) -> dict[str, object]:
        """Store the files of a form and start their delivery."""
        form = await request.form()
        build = f"{job_id}-{build_no}"
        reports = []
        for file in form.getlist("files"):
            body = await file.read()  # type: ignore[union-attr]
            tests = sum(1 for _ in ET.fromstring(body).iter("testcase"))  # noqa: S314 -- a benchmark's own files
            digest = hashlib.sha256(body).hexdigest()
            reports.append(Report(build=build, name=file.filename, sha256=digest, tests=tests, body=body))  # type: ignore[union-attr]
        async with self.sessions() as session:
            is_new = await session.get(Build, build) is None
            if is_new:
                session.add(Build(key=build))
            session.add_all(reports)
            await session.commit()
        if self.upstream:
            deliveries = [self._spawn(self._deliver(report.id, build)) for report in reports]
            if is_new:
                self._spawn(self._finish(build, job_id, build_no, deliveries))
        tests = sum(report.tests for report in reports)
        return {"status": "success", "result": f"{len(reports)} reports, {tests} tests", "error": None}

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _deliver(self, report_id: int, build: str) -> None:
        form = aiohttp.FormData({"test_run[metadata][build_id]": build}, default_to_multipart=True)
        form.add_field("tags[][value]", "bench")
        url = f"{self.upstream}/integrations/test_runs/upload"
        async with self.http.post(url, data=form, headers=self.headers) as response:
            registered = await response.json()
        await self._set(report_id, state="registered", upload_id=registered["upload_id"])
        async with self.sessions() as session:
            body = await session.scalar(select(Report.body).where(Report.id == report_id))
        async with self.http.put(registered["presigned_url"], data=body) as response:
            response.raise_for_status()
        await self._set(report_id, state="delivered", body=None)

    async def _finish(self, build: str, job_id: str, build_no: str, deliveries: "list[asyncio.Task[None]]") -> None:
        while True:
            async with self.http.get(f"{self.upstream}/v1/job/{job_id}/{build_no}/build-info") as response:
                if not (await response.json())["result"]["building"]:
                    break
            await asyncio.sleep(1)
        await asyncio.gather(*deliveries)
        url = f"{self.upstream}/integrations/test_runs/finalize"
        async with self.http.post(url, data={"build_id": build}, headers=self.headers) as response:
            response.raise_for_status()
        async with self.sessions() as session:
            await session.execute(update(Build).where(Build.key == build).values(state="finalized"))
            await session.commit()

    async def _set(self, report_id: int, **values: object) -> None:
        async with self.sessions() as session:
            await session.execute(update(Report).where(Report.id == report_id).values(values))
            await session.commit()


def _durable(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")


def main() -> None:
    """Serve on the port of the first argument; ledger, upstream (empty for none) and token follow."""
    bridge = NaiveBridge(sys.argv[2], sys.argv[3], sys.argv[4])
    app = FastAPI(on_startup=[bridge.start])
    app.post("/v1/report/junit/report/upload")(bridge.accept)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
