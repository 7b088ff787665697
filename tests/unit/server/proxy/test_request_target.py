import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadParameter, Forbidden
from bridge.server.proxy.request_target import Upstream, job_ids_in, parse_target

JOB = "68491d9bc97b4774adb93e29b46d2dc6"
OTHER = "b" * 32
DASHED = f"{OTHER[:8]}-{OTHER[8:12]}-{OTHER[12:16]}-{OTHER[16:20]}-{OTHER[20:]}"


@pytest.mark.parametrize(
    "raw",
    [
        "http://elsewhere.example/v1/job",
        "elsewhere.example:443",
        "*",
        "",
        "//elsewhere.example/v1/job",
        "/v1//job",
        "//",
        "/v1/../v3/auth/tokens",
        "/v1/./job",
        "/..",
        "/v1/job/%2e%2e/x",
        "/v1/job/.%2E/x",
        "/v1/job%2fx",
        "/v1/job%2Fx",
        "/v1/job%5cx",
        "/v1\\job",
        "/v1/%6Aob/x",
        "/v1/job/%252e%252e/x",
        "/v1/job/%25252fx",
        "/v1/job/..;/x",
        "/v1/job;a=b/x",
        "/v1/job%00",
        "/v1/job%0d%0aHost:x",
        "/v1/job%7f",
        "/v1/job%",
        "/v1/job%4",
        "/v1/job%zz",
        "/v1/job#x",
        "/v1/job?a#b",
        "/v1/job/\xe9",
        "/v1/job?\xe9",
        "/v1/job?a b",
        "/v1/<job>",
        '/v1/"job"',
        "/v1/job|x",
    ],
)
def test_a_target_with_two_readings_is_rejected(raw):
    with pytest.raises(BadParameter, match="two ways"):
        parse_target(raw)


@given(st.text(alphabet="abZ09-._~/%25efEF\\;?#:@ \x00é", max_size=24).map(lambda tail: "/" + tail))
def test_what_is_taken_stays_as_it_came_and_cannot_climb(raw):
    try:
        target = parse_target(raw)
    except BadParameter:
        return
    assert target.raw == raw
    assert not {".", ".."} & set(target.segments)
    assert "" not in target.segments[:-1]


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/", Upstream.BUILD),
        (f"/v1/job/{JOB}/1/build-info", Upstream.BUILD),
        (f"/v4/jobs/{JOB}/1/record-info", Upstream.BUILD),
        ("/v3/jobs/build", Upstream.BUILD),
        ("/v3/abc/jobs", Upstream.BUILD),
        ("/v3/templates/query", Upstream.BUILD),
        ("/v2/keystore/list", Upstream.BUILD),
        ("/v1/tasks/abc", Upstream.BUILD),
        ("/v1/jobs/abc/result/refresh", Upstream.CHECK),
        ("/v2/tasks/abc/progress", Upstream.CHECK),
        ("/v2/ruleset", Upstream.CHECK),
        ("/v2/abc/tasks/def/settings", Upstream.CHECK),
        ("/v3/abc/tasks/def/rulesets", Upstream.CHECK),
        ("/v3/auth/tokens", Upstream.IAM),
        ("/v3/projects", Upstream.IAM),
        ("/v3/OS-FEDERATION/tokens", Upstream.IAM),
        ("/v3.0/OS-CREDENTIAL/securitytokens", Upstream.IAM),
        ("/v5/caller-identity", Upstream.IAM),
        ("/v3/Auth/tokens", Upstream.BUILD),
    ],
)
def test_a_path_belongs_to_one_service(path, upstream):
    assert parse_target(path).upstream is upstream


@pytest.mark.parametrize(
    ("raw", "jobs"),
    [
        (f"/v1/job/{JOB}/1/build-info", {JOB}),
        (f"/v4/jobs/{JOB}/1/record-info", {JOB}),
        (f"/v1/record/{JOB}/1/record-info", {JOB}),
        (f"/v1/record/{JOB}/list", {JOB}),
        (f"/v1/record/{JOB}/1/record-info/", {JOB}),
        (f"/v1/report/{JOB}/summary?build_no=1", {JOB}),
        (f"/v1/log/{JOB}/1/real-time-log", {JOB}),
        (f"/v3/jobs/notice/{JOB}/query", {JOB}),
        (f"/v1/record/brief?job_id={JOB}", {JOB}),
        (f"/v1/report/time?a=1&job%5Fid={JOB}&job_id={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB.upper()}/1/build-info", {JOB}),
        (f"/v1/JOB/{JOB}/1/build-info", {JOB}),
        (f"/v1/job%20/{JOB}/1/build-info", {JOB}),
        (f"/v1/record/{JOB}/1/record-info%20", {JOB}),
        (f"/v1/job/{JOB}/1/build-info?jobId={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?JOB_ID={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?job_id[]={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?job_id%5B0%5D={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?filter[job.id]={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?job%255Fid={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?%EF%BD%8Aob_id={OTHER}", {JOB, OTHER}),
        (f"/v1/job/{JOB}/1/build-info?%20job_id={OTHER}", {JOB, OTHER}),
        ("/v1/job/default-parameters", set()),
        ("/v1/report/junit/coverage/list", set()),
        (f"/v1/record/{JOB}/full-stages", set()),
        ("/v1/job/list", set()),
        (f"/v1/jobs/{JOB}/result/refresh", set()),
        (f"/v2/tasks/{JOB}?job_id={JOB}", set()),
    ],
)
def test_the_jobs_that_a_path_names(raw, jobs):
    assert job_ids_in(parse_target(raw)) == jobs


@pytest.mark.parametrize(
    "written",
    [
        f"{OTHER}%20",
        f"%20{OTHER}",
        f"{OTHER}%EF%BB%BF",
        f"{OTHER}%C2%A0",
        f"{OTHER},x",
        f"{OTHER}=",
        f"{OTHER[:31]}%C3%A9",
        f"{OTHER[:31]}",
        f"{OTHER}b",
        f"'{OTHER}'",
        f"~{OTHER}",
        DASHED,
        DASHED.upper(),
        "%EF%BD%82" + OTHER[1:],
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/job/{}/1/build-info",
        "/v4/jobs/{}/1/record-info",
        "/v1/record/{}/1/record-info",
        "/v1/record/{}/list",
        "/v1/report/{}/summary?build_no=1",
        "/v3/jobs/notice/{}/query",
        "/v1/record/brief?job_id={}",
        "/v1/record/brief?job_ids={}",
    ],
)
def test_what_is_not_an_id_where_an_id_belongs_is_rejected(path, written):
    with pytest.raises(Forbidden, match="is not the id of a job"):
        job_ids_in(parse_target(path.format(written)))


@pytest.mark.parametrize("query", [f"x;job_id={OTHER}", f"a=1;job_id={OTHER}", ";"])
def test_a_query_with_a_semicolon_has_two_readings(query):
    with pytest.raises(BadParameter, match="two ways"):
        job_ids_in(parse_target(f"/v1/job/{JOB}/1/build-info?{query}"))
