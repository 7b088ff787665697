import asyncio
import os
import shutil

import aiohttp
import pytest


async def test_a_registration_has_the_references_fields(testnod, sandbox):
    status, body = await testnod.register()
    assert status == 201
    assert set(body) == {"id", "project_id", "test_run_id", "upload_id", "test_run_url", "presigned_url"}
    assert len({body["id"], body["test_run_id"], body["upload_id"]}) == 3
    assert body["test_run_url"].endswith(f"/projects/{body['project_id']}/test_runs/{body['test_run_id']}")
    assert body["presigned_url"].startswith(f"{sandbox.s3_url}/")


@pytest.mark.parametrize("form", ["urlencoded", "multipart", "json"])
async def test_metadata_and_tags_are_read_from_every_kind_of_body(testnod, sandbox, form):
    metadata = {"build_id": "b1", "branch": "main", "commit_sha": "abc", "run_url": "https://ci.test/1"}
    if form == "json":
        tags = [{"value": "smoke"}, {"value": "nightly"}]
        sent = {"json": {"tags": tags, "test_run": {"metadata": metadata}}}
    else:
        fields = [(f"test_run[metadata][{name}]", value) for name, value in metadata.items()]
        fields += [("tags[][value]", "smoke"), ("tags[][value]", "nightly")]
        data = aiohttp.FormData(fields, default_to_multipart=form == "multipart")
        sent = {"data": data}
    assert (await testnod.post("upload", **sent))[0] == 201
    (upload,) = sandbox.state.runs.all("b1")[0].uploads
    assert upload.registered.metadata == metadata
    assert upload.registered.tags == ("smoke", "nightly")


@pytest.mark.parametrize("tags", [None, []])
async def test_without_tags_the_run_is_tagged_default(testnod, sandbox, tags):
    await testnod.post("upload", json={"tags": tags, "test_run": {"metadata": {"build_id": "b1"}}})
    assert sandbox.state.runs.all("b1")[0].uploads[0].registered.tags == ("Default",)


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"test_run[metadata][build_id]": "b1", "tags": "smoke"}},
        {"data": {"test_run[metadata][build_id]": "b1", "tags[]": "smoke"}},
        {"json": {"tags": "smoke", "test_run": {"metadata": {"build_id": "b1"}}}},
        {"json": {"tags": ["smoke"], "test_run": {"metadata": {"build_id": "b1"}}}},
    ],
    ids=["form", "form list", "JSON", "JSON list"],
)
async def test_a_tag_that_is_no_object_with_a_value_is_422(testnod, sandbox, sent):
    message = "There was a problem creating this test run."
    assert await testnod.post("upload", **sent) == (422, {"error_message": message})
    assert sandbox.state.runs.all("b1") == []


WORKED_EXAMPLE = r"""
response=$(curl -sS -X POST https://app.testnod.com/integrations/test_runs/upload \
-H "Project-Token: $TESTNOD_PROJECT_TOKEN" \
-F "test_run[metadata][build_id]=$CI_BUILD_ID" \
-F "test_run[metadata][branch]=$CI_BRANCH" \
-F "test_run[metadata][commit_sha]=$CI_COMMIT_SHA" \
-F "test_run[metadata][run_url]=$CI_RUN_URL" \
-F "tags[][value]=smoke")
upload_url=$(echo "$response" | grep -o '"presigned_url":"[^"]*"' | cut -d'"' -f4)
curl -sS -H "Content-Type: application/xml" --upload-file tmp/rspec.xml "$upload_url"
curl -sS -X POST https://app.testnod.com/integrations/test_runs/finalize \
-H "Project-Token: $TESTNOD_PROJECT_TOKEN" \
-d "build_id=$CI_BUILD_ID"
"""
"""Verbatim from TestNod's page of its Submission API, without the comments."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_worked_example_of_testnods_page_works(sandbox, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "rspec.xml").write_text("<testsuite/>")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-e", "-c", WORKED_EXAMPLE.replace("https://app.testnod.com", sandbox.testnod_url)),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "CURL_HOME": str(tmp_path),
            "TESTNOD_PROJECT_TOKEN": sandbox.project_token,
            "CI_BUILD_ID": "b1",
            "CI_BRANCH": "main",
            "CI_COMMIT_SHA": "c0ffee",
            "CI_RUN_URL": "https://ci.test/1",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()

    assert (process.returncode, stdout, stderr) == (0, b'{"status":"pending"}', b"")
    (upload,) = sandbox.state.runs.all("b1")[0].uploads
    assert (upload.puts, upload.size, upload.registered.tags) == (1, 12, ("smoke",))


@pytest.mark.parametrize("path", ["upload", "finalize", "upload_failed"])
@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_wrong_token_is_404_and_never_401(testnod, path, token):
    assert await testnod.post(path, token=token) == (404, {"error_message": "Project not found."})


@pytest.mark.parametrize("build_id", ["", "  "])
async def test_a_register_without_build_id_is_422(testnod, build_id):
    assert await testnod.register(build_id) == (422, {"error_message": "metadata.build_id is required."})


async def test_two_first_registers_of_a_build_at_once_are_a_conflict(testnod):
    answers = await asyncio.gather(testnod.register(), testnod.register())
    assert sorted(status for status, _ in answers) == [201, 409]
    assert (409, {"error_message": "Conflicting concurrent upload."}) in answers


async def test_registers_of_a_known_build_run_side_by_side(testnod):
    _, first = await testnod.register()
    answers = await asyncio.gather(*(testnod.register() for _ in range(5)))
    assert {status for status, _ in answers} == {201}
    assert {body["test_run_id"] for _, body in answers} == {first["test_run_id"]}


async def test_finalize_without_build_id_is_422(testnod):
    assert await testnod.finalize("") == (422, {"error_message": "build_id is required."})


async def test_finalize_of_an_unknown_build_is_404(testnod):
    answer = await testnod.finalize("never")
    assert answer == (404, {"error_message": "Test run not found for this build_id."})


async def test_finalize_of_a_run_without_uploads_is_422(testnod, sandbox):
    project = sandbox.state.runs.project(sandbox.project_token)
    sandbox.state.runs.open_run(project, "empty", at=sandbox.state.micros(), processing_us=0)
    answer = await testnod.finalize("empty")
    assert answer == (422, {"error_message": "No uploads received for this test run."})


async def test_finalize_takes_json_too(testnod):
    await testnod.register("7")
    assert await testnod.post("finalize", json={"build_id": "7"}) == (200, {"status": "pending"})


async def test_a_run_goes_from_pending_over_processing_to_processed(testnod, clock):
    _, registration = await testnod.register()
    assert await testnod.put(registration) == 200
    assert await testnod.finalize() == (200, {"status": "pending"})
    clock.move(0.03)
    assert await testnod.finalize() == (200, {"status": "processing"})
    clock.move(0.03)
    assert await testnod.finalize() == (200, {"status": "processed"})


async def test_an_upload_that_no_one_put_holds_its_run_forever(testnod, clock):
    await testnod.register()
    await testnod.finalize()
    clock.move(10 * 365 * 86_400)
    assert await testnod.finalize() == (200, {"status": "pending"})


async def test_an_upload_reported_failed_lets_its_run_go(testnod, clock):
    _, registration = await testnod.register()
    await testnod.finalize()
    assert await testnod.upload_failed(registration) == (200, {"status": "failed"})
    clock.move(1)
    assert await testnod.finalize() == (200, {"status": "failed"})


async def test_upload_failed_after_parsing_answers_what_the_upload_was(testnod, clock):
    _, registration = await testnod.register()
    await testnod.put(registration)
    clock.move(1)
    assert await testnod.upload_failed(registration) == (200, {"status": "processed"})


async def test_a_register_after_the_run_left_pending_opens_a_fresh_one(testnod, clock):
    _, first = await testnod.register()
    await testnod.put(first)
    clock.move(1)
    await testnod.finalize()
    _, late = await testnod.register()
    assert late["test_run_id"] != first["test_run_id"]
    assert await testnod.finalize() == (200, {"status": "pending"})


@pytest.mark.parametrize("upload_id", ["99", "x", "9" * 5000, ""])
async def test_upload_failed_of_ids_that_no_register_gave_out_is_404(testnod, upload_id):
    _, registration = await testnod.register()
    status, _ = await testnod.upload_failed({**registration, "upload_id": upload_id})
    assert status == 404


async def test_a_body_that_is_not_json_is_400(http, sandbox):
    headers = {"Project-Token": sandbox.project_token, "Content-Type": "application/json"}
    url = f"{sandbox.testnod_url}/integrations/test_runs/upload"
    async with http.post(url, data=b"{", headers=headers) as answer:
        assert answer.status == 400
    assert [call.status for call in sandbox.state.calls.at()] == [400]
