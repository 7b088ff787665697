import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadParameter
from bridge.server.proxy.request_target import Upstream, job_ids_in, parse_target

JOB = "68491d9bc97b4774adb93e29b46d2dc6"


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
        (f"/v1/report/time?a=1&job%5Fid={JOB}&job_id=x", {JOB, "x"}),
        (f"/v1/record/{JOB}/full-stages", set()),
        ("/v1/job/list", set()),
        (f"/v1/jobs/{JOB}/result/refresh", set()),
        (f"/v2/tasks/{JOB}?job_id={JOB}", set()),
    ],
)
def test_the_jobs_that_a_path_names(raw, jobs):
    assert job_ids_in(parse_target(raw)) == jobs
