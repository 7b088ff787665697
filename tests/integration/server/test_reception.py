"""Files of one upload while they come in: what the others beside it notice."""

import asyncio

from bridge.server.upload.file_store import UploadFileStore, UploadSource
from bridge.server.upload.limits import UploadLimits
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.quarantine import Quarantine
from bridge.server.upload.receiver import FileReceiver
from bridge.store.blobs.disk import DiskSpool
from tests.support.handlers import GOOD, KEEP_US, ROUTES

FILES = 200


def _filing(folder, checker, limits):
    sender = UploadSource(job_id="a" * 32, build_no=7, node_id="n", caller="ci")
    quarantine = Quarantine(keep_us=KEEP_US, room=lambda _: None)
    return UploadFileStore(
        DiskSpool(folder), checker, quarantine, sender=sender, route=ROUTES[3], limits=limits, room=lambda _: None
    )


async def test_an_upload_of_many_small_files_gives_others_a_turn_after_each(tmp_path, checker):
    limits = UploadLimits(max_report_size=10_000, max_request_size=10_000_000, max_files=FILES)
    reception = FileReceiver(_filing(tmp_path, checker, limits), limits)
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    for number in range(FILES):
        reception.begin(FileStart(f"{number}.xml"))
        await reception.write(GOOD)
        await reception.end()
    counting.cancel()

    assert turns >= FILES - 1
