"""Files of one upload while they come in: what the others beside it notice."""

import asyncio

from bridge.server.upload.file_store import Quarantine, UploadFileStore, UploadLimits, UploadSource
from bridge.server.upload.multipart_form import FileStart
from bridge.server.upload.receiver import FileReceiver
from bridge.store.blobs.disk import DiskSpool
from tests.support.upload_server import GOOD, KEEP_US, ROUTES

FILES = 200


def _store(folder, checker, limits):
    source = UploadSource(job_id="a" * 32, build_no=7, node_id="n", caller="ci")
    quarantine = Quarantine(keep_us=KEEP_US, reserve_space=lambda _: None)
    return UploadFileStore(
        DiskSpool(folder),
        checker,
        quarantine,
        source=source,
        route=ROUTES[3],
        limits=limits,
        reserve_space=lambda _: None,
    )


async def test_an_upload_of_many_small_files_gives_others_a_turn_after_each(tmp_path, checker):
    limits = UploadLimits(max_report_size=10_000, max_request_size=10_000_000, max_files=FILES)
    receiver = FileReceiver(_store(tmp_path, checker, limits), limits)
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    for number in range(FILES):
        receiver.start(FileStart(f"{number}.xml"))
        await receiver.write(GOOD)
        await receiver.end()
    counting.cancel()

    assert turns >= FILES - 1
