from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import BoundMetadata, Build, BuildRecord, BuildState, UploadMetadata
from bridge.domain.routing import (
    Route,
    RoutingKeys,
    candidate_routes,
    choose_route,
    choose_run_parameters,
    match_route,
    metadata_mismatch,
    render,
    routing_keys_of,
    unknown_fields,
)
from tests.support.builders import a_build, pending, report

JOB = "0123456789abcdef0123456789abcdef"


def build(*, record=None, upload_metadata=None):
    return Build(
        id=1,
        job_id=JOB,
        build_no=7,
        state=BuildState.OPEN,
        report_seq=1,
        finalized_seq=0,
        fencing_token=1,
        accepted_at=0,
        last_report_at=0,
        upload_metadata=upload_metadata or UploadMetadata(),
        record=record,
    )


JOBS = Route(name="jobs", job_id=("a*",))
MAIN = Route(name="main", branch=("main", "release/*"))
REPO = Route(name="repo", repo=("shop",), project_id=("p1",))
NAMED = Route(name="named", job_name=("* nightly",))
ANY = Route(name="any")


@pytest.mark.parametrize(
    ("routes", "facts", "names", "chosen"),
    [
        ([JOBS, ANY], RoutingKeys(job_id="abc"), ["jobs"], "jobs"),
        ([JOBS, ANY], RoutingKeys(job_id="xyz"), ["any"], "any"),
        ([JOBS, ANY], RoutingKeys(job_id="Abc"), ["any"], "any"),
        ([JOBS], RoutingKeys(job_id="xyz"), [], None),
        ([MAIN, ANY], RoutingKeys(job_id="a"), ["main", "any"], "any"),
        ([MAIN, ANY, JOBS], RoutingKeys(job_id="a"), ["main", "any"], "any"),
        ([MAIN, ANY], RoutingKeys(job_id="a", branch="main"), ["main"], "main"),
        ([MAIN, ANY], RoutingKeys(job_id="a", branch="release/1/2"), ["main"], "main"),
        ([MAIN, ANY], RoutingKeys(job_id="a", branch="dev"), ["any"], "any"),
        ([MAIN], RoutingKeys(job_id="a"), ["main"], None),
        ([REPO, ANY], RoutingKeys(job_id="a", project_id="p1"), ["repo", "any"], "any"),
        ([REPO, ANY], RoutingKeys(job_id="a", project_id="p2"), ["any"], "any"),
        ([REPO, ANY], RoutingKeys(job_id="a", project_id="p1", repo="shop"), ["repo"], "repo"),
        ([Route(name="x", job_id=("a", "*"))], RoutingKeys(job_id="b"), ["x"], "x"),
        ([NAMED, ANY], RoutingKeys(job_id="a"), ["named", "any"], "any"),
        ([NAMED, ANY], RoutingKeys(job_id="a", job_name="shop nightly"), ["named"], "named"),
        ([NAMED, ANY], RoutingKeys(job_id="a", job_name="shop"), ["any"], "any"),
        ([], RoutingKeys(job_id="a"), [], None),
    ],
)
def test_the_first_route_that_matches_takes_the_build(routes, facts, names, chosen):
    assert [route.name for route in candidate_routes(routes, facts)] == names
    route = match_route(routes, facts)
    assert (route.name if route else None) == chosen


_globs = st.lists(st.sampled_from(["*", "a", "b", "a*", "?", "[ab]"]), min_size=1, max_size=2).map(tuple)
_routes = st.lists(
    st.builds(Route, name=st.just("r"), job_id=_globs, project_id=_globs, repo=_globs, branch=_globs, job_name=_globs),
    max_size=4,
)
_words = st.sampled_from(["a", "b", "ab", "c"])
_known = st.builds(RoutingKeys, job_id=_words, project_id=_words, repo=_words, branch=_words, job_name=_words)


@given(_routes, st.builds(RoutingKeys, job_id=_words, project_id=st.none() | _words, repo=st.none() | _words))
def test_the_route_that_is_chosen_was_possible(routes, facts):
    chosen = match_route(routes, facts)
    assert chosen is None or any(route is chosen for route in candidate_routes(routes, facts))


@given(_routes, _known, st.sets(st.sampled_from(["project_id", "repo", "branch", "job_name"])))
def test_learning_more_never_leads_to_a_route_that_was_not_possible_before(routes, known, hidden):
    before = RoutingKeys(
        job_id=known.job_id,
        project_id=None if "project_id" in hidden else known.project_id,
        repo=None if "repo" in hidden else known.repo,
        branch=None if "branch" in hidden else known.branch,
        job_name=None if "job_name" in hidden else known.job_name,
    )
    after = match_route(routes, known)
    assert after is None or any(route is after for route in candidate_routes(routes, before))


def test_the_record_wins_over_what_the_upload_said():
    record = BuildRecord(branch="main", devcloud_project_id="p1", repo_name="shop", job_name="nightly")
    said = UploadMetadata(branch="dev", project_id="p2", job_name="weekly")
    assert routing_keys_of(build(record=record), said) == RoutingKeys(
        job_id=JOB, project_id="p1", repo="shop", branch="main", job_name="nightly"
    )
    assert routing_keys_of(build(), said) == RoutingKeys(job_id=JOB, project_id="p2", branch="dev", job_name="weekly")


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("b-{job_id}-{build_no}", {"job_id": "j", "build_no": 7}, "b-j-7"),
        ("{branch}|{tag}", {"branch": None}, "|"),
        ("{branch}", {"branch": "{commit}", "commit": "canary"}, "{commit}"),
        ("plain", {}, "plain"),
    ],
)
def test_a_template_is_filled_once_and_unknown_values_are_empty(template, values, text):
    assert render(template, values) == text


def test_names_that_no_template_knows_are_found():
    assert unknown_fields("{job_id}{job}{}{trigger_type}") == ["job", ""]


def test_a_pin_takes_the_record_before_what_was_said():
    route = Route(name="shop", tags=("unit",), run_url="https://x/{job_id}?b={branch}&n={daily_build_num}")
    record = BuildRecord(branch="main", commit=None, daily_build_num="20240626.1")
    pinned = choose_run_parameters(
        route, build(record=record, upload_metadata=UploadMetadata(branch="dev", commit="abc")), 99
    )
    assert pinned.route == "shop"
    assert pinned.build_id == f"codearts-{JOB}-7"
    assert pinned.tags == ("unit",)
    assert pinned.run_url == f"https://x/{JOB}?b=main&n=20240626.1"
    assert (pinned.branch, pinned.commit, pinned.chosen_at) == ("main", "abc", 99)


REPO_URL = "https://codehub.example.com/a b/1?tab=home&x=%20"


@pytest.mark.parametrize(
    ("run_url", "record", "rendered"),
    [
        ("https://x/{job_name}", BuildRecord(job_name="shop nightly"), "https://x/shop%20nightly"),
        ("https://x/?r={repo_url}", BuildRecord(repo_url="https://h/r?a&b"), "https://x/?r=https%3A//h/r%3Fa%26b"),
        ("https://x/?r={repo_url}", BuildRecord(), "https://x/?r="),
        ("{repo_url}", BuildRecord(repo_url=REPO_URL), "https://codehub.example.com/a%20b/1?tab=home&x=%20"),
        ("{repo_url}#{branch}", BuildRecord(repo_url="https://h/r", branch="a#b"), "https://h/r#a%23b"),
        ("{repo_url}#{branch}", BuildRecord(branch="main"), ""),
        ("{repo_url}{repo_url}", BuildRecord(repo_url="https://h/"), "https://h/https%3A//h/"),
    ],
)
def test_the_page_of_a_run_may_be_that_of_the_repository(run_url, record, rendered):
    assert choose_run_parameters(Route(name="r", run_url=run_url), build(record=record), 1).run_url == rendered


def test_the_name_that_an_upload_stated_fills_templates_if_the_record_has_none():
    route = Route(name="r", run_url="https://x/{job_name}")
    stated = build(upload_metadata=UploadMetadata(job_name="nightly"))
    assert choose_run_parameters(route, stated, 1).run_url == "https://x/nightly"


def test_what_would_end_a_url_or_its_query_is_quoted_in_the_run_url_alone():
    route = Route(
        name="shop", build_id="{branch}/{job_id}/{build_no}", run_url="https://x/{branch}?b={branch}&n={build_no}"
    )
    pinned = choose_run_parameters(route, build(upload_metadata=UploadMetadata(branch="feat/a b&c#1=主%")), 5)
    branch = "feat/a%20b%26c%231%3D%E4%B8%BB%25"
    assert pinned.run_url == f"https://x/{branch}?b={branch}&n=7"
    assert (pinned.build_id, pinned.branch) == (f"feat/a b&c#1=主%/{JOB}/7", "feat/a b&c#1=主%")


def test_a_pin_without_record_and_words_still_names_the_build():
    pinned = choose_run_parameters(Route(name="shop"), build(), 99)
    assert (pinned.build_id, pinned.run_url, pinned.branch, pinned.commit) == (f"codearts-{JOB}-7", "", None, None)


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("said", "record", "sentence"),
    [
        (UploadMetadata(), BuildRecord(commit=SHA, devcloud_project_id="p"), None),
        (UploadMetadata(commit=SHA, project_id="p"), BuildRecord(), None),
        (UploadMetadata(commit=SHA[:7]), BuildRecord(commit=SHA), None),
        (UploadMetadata(commit=SHA), BuildRecord(commit=SHA[:8]), None),
        (UploadMetadata(commit=SHA.upper()), BuildRecord(commit=SHA), None),
        (UploadMetadata(branch="dev"), BuildRecord(branch="main"), "The upload named branch dev, the record main."),
        (UploadMetadata(branch="refs/heads/main"), BuildRecord(branch="main"), None),
        (UploadMetadata(branch="main"), BuildRecord(branch="heads/main"), None),
        (
            UploadMetadata(commit=SHA[:6]),
            BuildRecord(commit=SHA),
            f"The upload named commit {SHA[:6]}, the record {SHA}.",
        ),
        (
            UploadMetadata(commit="fffffff"),
            BuildRecord(commit=SHA),
            f"The upload named commit fffffff, the record {SHA}.",
        ),
        (
            UploadMetadata(project_id="p"),
            BuildRecord(devcloud_project_id="q"),
            "The upload named project p, the record q.",
        ),
        (
            UploadMetadata(project_id="p", commit="a"),
            BuildRecord(devcloud_project_id="q", commit="b"),
            "The upload named project p, the record q and commit a, the record b.",
        ),
    ],
)
def test_upload_and_record_disagree_only_on_project_branch_or_commit(said, record, sentence):
    assert metadata_mismatch(said, record) == sentence


# -- what uploads of several callers state -----------------------------------------------------------------------

A, B, REST = Route(name="a", branch=("main",)), Route(name="b", branch=("dev",)), Route(name="rest")
OURS, THEIRS = ("a",), ("b",)


def bound(routes, **stated):
    return BoundMetadata(routes=routes, stated=UploadMetadata(**stated))


def owed(*senders, **values):
    """Return a build with a pending report of each sender, given by the routes that it may use."""
    things = [
        thing
        for number, routes in enumerate(senders, 1)
        for thing in (pending(number), report(number, caller_routes=routes))
    ]
    return a_build(*things, **values)


@pytest.mark.parametrize(
    ("routes", "build", "chosen"),
    [
        ((REST,), owed(OURS), ("rest", "certain")),
        ((A,), owed(OURS), (None, "certain")),
        ((A,), owed(OURS, bound_metadata=(bound(OURS, branch="main"),)), ("a", "certain")),
        ((A, B), owed(OURS, record=BuildRecord(branch="dev")), ("b", "certain")),
        ((A, B), owed(None, upload_metadata=UploadMetadata(branch="main")), ("a", "")),
        ((A, REST), owed(None), ("rest", "")),
        ((A, B), owed(("a", "b"), bound_metadata=(bound(("a", "b"), branch="main"),)), ("a", "")),
        ((A, B), owed(OURS, bound_metadata=(bound(OURS, branch="main"),)), ("a", "exclusive")),
        ((A, B), owed(OURS, THEIRS, bound_metadata=(bound(OURS, branch="main"),)), ("a", "contested exclusive")),
        # A statement of a caller without a pending report, or for a route that is not its own, counts for nothing.
        (
            (A, B),
            owed(OURS, bound_metadata=(bound(THEIRS, branch="dev"), bound(OURS, branch="main"))),
            ("a", "exclusive"),
        ),
        ((A, B), owed(OURS, THEIRS, bound_metadata=(bound(THEIRS, branch="main"),)), ("a", "contested exclusive")),
        (
            (A, B),
            owed(OURS, THEIRS, bound_metadata=(bound(THEIRS, branch="dev"), bound(OURS, branch="main"))),
            ("b", "contested exclusive"),
        ),
        (
            (A, B),
            owed(
                None, OURS, upload_metadata=UploadMetadata(branch="dev"), bound_metadata=(bound(OURS, branch="main"),)
            ),
            ("b", "contested exclusive"),
        ),
        ((A, REST), owed(OURS), ("rest", "contested exclusive")),
        ((A, REST), owed(("rest",), bound_metadata=(bound(("rest",), branch="dev"),)), ("rest", "exclusive")),
    ],
)
def test_a_statement_counts_for_routes_that_its_caller_may_use(routes, build, chosen):
    choice = choose_route(routes, build)
    traits = [name for name in ("certain", "contested", "exclusive") if getattr(choice, f"is_{name}")]
    assert (choice.route and choice.route.name, " ".join(traits)) == chosen


def test_a_run_takes_branch_and_commit_from_callers_of_its_route_only():
    lie = bound(THEIRS, branch="dev", commit="bad0bad", project_id="p")
    found = choose_run_parameters(A, owed(OURS, bound_metadata=(lie, bound(OURS, branch="main"))), 5)
    assert (found.branch, found.commit) == ("main", None)


ROUTE_SETS = st.one_of(st.none(), st.sets(st.sampled_from("abr")).map(lambda names: tuple(sorted(names))))
STATED = st.sampled_from(["main", "dev", "x", None])


@given(
    senders=st.lists(ROUTE_SETS, max_size=3),
    statements=st.lists(st.tuples(ROUTE_SETS.filter(lambda routes: routes is not None), STATED), max_size=3),
    unbound=STATED,
)
def test_an_uncontested_route_that_is_not_certain_is_one_that_every_caller_may_use(senders, statements, unbound):
    build = owed(
        *senders,
        upload_metadata=UploadMetadata(branch=unbound),
        bound_metadata=tuple(bound(routes, branch=branch) for routes, branch in statements),
    )
    choice = choose_route((A, B, replace(REST, name="r")), build)
    if choice.route is not None and not choice.is_contested:
        assert all(routes is None or choice.route.name in routes for routes in senders)
