from array import array
from collections import Counter

import pytest

from bridge.domain.build_durations import learn
from bridge.domain.instants import HOUR, MINUTE, SECOND
from bridge.domain.poll_questions import MIN_JOBS, PROJECT_INTERVAL, RIVALS, OpenJob, QuestionBook, mark_finished
from bridge.domain.request_rate import Api
from tests.support.builders import NOW

PER_MINUTE = 100
TEN_MINUTES = learn([10 * MINUTE] * 20)


@pytest.fixture
def book():
    return QuestionBook(initial_delay=5 * SECOND, min_interval=5 * SECOND, max_interval=MINUTE)


def job(name="job", *, builds=1, age=9 * MINUTE, seen=5 * MINUTE, first=1, **values):
    """Return a job whose builds began `age` ago and were last seen running `seen` ago."""
    given = {"route": "shop", "durations": TEN_MINUTES, "accepted_at": NOW - age, "asked_at": NOW - seen, **values}
    ids = range(first, first + builds)
    return OpenJob(
        job_id=name,
        ids=array("q", ids),
        started=array("q", [NOW - age] * builds),
        seen=array("q", [NOW - seen] * builds),
        **given,
    )


def put(book, *jobs, per_minute=PER_MINUTE):
    for each in jobs:
        book.put(each, NOW, per_minute)


def crowd(book):
    """Add so many builds that the calls are scarce."""
    put(book, *(job(f"crowd{n}", builds=10, age=MINUTE, seen=0, route="crowd") for n in range(10)))


def test_a_single_build_is_asked_about_alone_and_many_of_a_job_by_their_list(book):
    crowd(book)
    put(book, job("one"), job("many", builds=5, age=2 * MINUTE, seen=2 * MINUTE, first=10))
    assert book.choose(Api.BUILD_INFO, NOW).build_id == 1
    assert book.choose(Api.RECORD_LIST, NOW).job_id in {"one", "many"}


def test_builds_that_usually_take_that_long_come_first(book):
    crowd(book)
    put(book, job("young", age=5 * MINUTE, seen=4 * MINUTE), job("due", age=11 * MINUTE, seen=4 * MINUTE, first=2))
    assert book.choose(Api.BUILD_INFO, NOW).job_id == "due"


def test_a_build_that_a_notice_came_for_comes_first(book):
    crowd(book)
    put(book, job("due", age=11 * MINUTE), job("hooked", age=MINUTE, seen=SECOND, first=2, requested=frozenset({2})))
    assert book.choose(Api.BUILD_INFO, NOW).build_id == 2


def test_a_build_that_runs_far_longer_than_usual_is_asked_about_rarely(book):
    crowd(book)
    usual, long = job("usual", age=10 * MINUTE, seen=0), job("long", age=20 * HOUR, seen=0)
    put(book, usual, long)
    assert usual.worth_at - NOW < 2 * MINUTE
    assert long.worth_at - NOW > 5 * MINUTE


def test_a_question_waits_for_the_interval_after_it_was_asked(book):
    crowd(book)
    due = job("due", age=11 * MINUTE)
    put(book, due)
    book.asked(book.choose(Api.BUILD_INFO, NOW), NOW, PER_MINUTE)
    assert book.choose(Api.BUILD_INFO, NOW) is None
    assert book.choose(Api.BUILD_INFO, NOW + 5 * SECOND).job_id == "due"


def test_if_calls_are_plentiful_builds_are_asked_about_as_the_settings_have_it(book):
    one = job(age=MINUTE, seen=0)
    put(book, one, per_minute=6000)
    assert one.worth_at <= NOW + 30 * SECOND


def test_routes_take_turns(book):
    crowd(book)
    put(book, *(job(f"a{n}", age=11 * MINUTE, first=n, route="a") for n in range(1, 5)))
    put(book, job("b", age=9 * MINUTE, seen=6 * MINUTE, first=9, route="b"))
    asked = []
    for _ in range(4):
        question = book.choose(Api.BUILD_INFO, NOW)
        asked.append(book.jobs[question.job_id].route)
        book.asked(question, NOW, PER_MINUTE)
    assert "b" in asked[:2]


@pytest.mark.parametrize(("may_list", "listed"), [(True, "many"), (False, None)])
def test_a_list_that_may_not_be_used_leaves_its_builds_to_build_info(book, may_list, listed):
    crowd(book)
    put(book, job("many", builds=5, seen=6 * MINUTE, may_list=may_list, asked_at=NOW - HOUR, first=1000))
    question = book.choose(Api.RECORD_LIST, NOW)
    assert (question and question.job_id) == listed
    assert book.choose(Api.BUILD_INFO, NOW).job_id == "many"


def test_what_a_list_lacks_does_not_call_for_the_list_again(book):
    crowd(book)
    many = job("many", builds=3, age=10 * MINUTE, seen=5 * MINUTE)
    many.note_listed(listed=[1, 2], at=NOW)
    put(book, many)
    assert book.choose(Api.RECORD_LIST, NOW) is None
    question = book.choose(Api.BUILD_INFO, NOW)
    assert (question.job_id, question.build_id) == ("many", 3)


def test_the_jobs_of_a_project_are_listed_if_many_of_them_wait(book):
    crowd(book)
    put(book, *(job(f"p{n}", age=11 * MINUTE, first=n + 1, project_id="p") for n in range(MIN_JOBS)))
    assert book.choose(Api.JOB_LIST, NOW).project_id == "p"
    book.project("p").asked_at = NOW
    assert book.choose(Api.JOB_LIST, NOW) is None
    assert book.choose(Api.JOB_LIST, NOW + PROJECT_INTERVAL).project_id == "p"
    book.project("p").pages = 2
    assert book.choose(Api.JOB_LIST, NOW + PROJECT_INTERVAL) is None


def test_a_job_that_runs_nothing_is_asked_about_next_and_one_that_runs_can_wait():
    ended, running, several = job("ended"), job("running", first=2), job("several", builds=2, first=3)
    changed = mark_finished([ended, running, several], {"ended"}, {"running", "several"}, NOW)
    assert changed == [ended, running]
    assert ended.value_of(NOW + SECOND) > 5 * MINUTE
    assert running.value_of(NOW) == 0


def test_a_job_without_open_builds_is_forgotten(book):
    put(book, job("due", age=11 * MINUTE))
    put(book, job("due", builds=0))
    assert not book.jobs
    assert book.builds == 0
    assert book.choose(Api.BUILD_INFO, NOW) is None


def test_the_queue_of_a_job_that_changes_often_stays_short(book):
    for _ in range(1000):
        put(book, job(age=MINUTE, seen=0))
    assert len(book._later) < 20


def test_routes_take_turns_also_if_each_question_is_looked_up_before_its_slot(book):
    for route in ("api", "shop"):
        put(book, *(job(f"{route}{n}", builds=3, first=10 * n + 1, route=route) for n in range(20)))
    asked = []
    for _ in range(10):
        assert book.choose(Api.RECORD_LIST, NOW) is not None
        question = book.choose(Api.RECORD_LIST, NOW)
        asked.append(book.jobs[question.job_id].route)
        book.asked(question, NOW, PER_MINUTE)
    assert asked == ["api", "shop"] * 5


def test_routes_take_turns_in_the_calls_of_each_api(book):
    routes = ("api", "shop")
    for number, route in enumerate(routes):
        first = 1000 * number
        put(book, *(job(f"{route}{n}", builds=3, first=first + 10 * n, route=route) for n in range(20)))
        put(book, *(job(f"{route}-{n}", first=first + 500 + n, route=route, may_list=False) for n in range(20)))
    asked = Counter()
    for number in range(20):
        question = book.choose((Api.BUILD_INFO, Api.RECORD_LIST)[number % 2], NOW)
        asked[question.api, book.jobs[question.job_id].route] += 1
        book.asked(question, NOW, PER_MINUTE)
    assert set(asked.values()) == {5}


def test_however_many_jobs_wait_a_choice_evaluates_a_bounded_number_and_later_choices_the_others(book, monkeypatch):
    routes = 40
    for number in range(routes):
        route, running = f"route{number}", {"builds": 20, "age": 5 * MINUTE, "seen": 3 * MINUTE}
        put(book, *(job(f"{route}/{n}", route=route, **running) for n in range(50)))
    put(book, job("single", route="single", first=1))
    evaluated = []
    evaluate = OpenJob.evaluate
    monkeypatch.setattr(OpenJob, "evaluate", lambda job, now: (evaluated.append(job), evaluate(job, now)))
    chosen = [book.choose(Api.BUILD_INFO, NOW)]
    assert len(evaluated) <= RIVALS + 50
    while chosen[-1] is None:
        chosen.append(book.choose(Api.BUILD_INFO, NOW))
    assert chosen[-1].job_id == "single"


def test_if_a_job_cannot_be_listed_each_of_its_many_builds_is_asked_about(book):
    many = 200
    put(book, job("many", builds=many, may_list=False))
    asked, now = Counter(), NOW
    while len(asked) < many:
        now += 7 * SECOND
        if (question := book.choose(Api.BUILD_INFO, now)) is not None:
            many_job = book.jobs["many"]
            asked[question.build_id] += 1
            many_job.seen[many_job.ids.index(question.build_id)] = now
            book.asked(question, now, PER_MINUTE)
        assert now < NOW + 12 * HOUR
    assert max(asked.values()) < 30
