import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.runs import CONFLICT, NO_UPLOADS, RUN_NOT_FOUND, UPLOAD_NOT_FOUND, RegisteredUpload, Runs, State

PROCESSING_US = 20
STEP_US = 100  # between two events of a story: longer than parsing and processing together


class Story:
    """Plays events at 0, 100, 200 … µs: register, put N, fail N, finalize."""

    def __init__(self):
        self.runs = Runs()
        self.project = self.runs.open_project("token", "shop")
        self.uploads = []
        self.answers = []
        self.at = 0

    def play(self, *events):
        for event in events:
            self.answers.append(self._play(*event.split()))
            self.at += STEP_US
        return self

    def _play(self, verb, number="1"):
        if verb == "register":
            registered = RegisteredUpload(build_id="b1")
            self.uploads.append(self.runs.register(self.project, registered, at=self.at, processing_us=PROCESSING_US))
            return None
        if verb == "finalize":
            return self.runs.finalize(self.project, "b1", at=self.at)
        upload = self.uploads[int(number) - 1]
        if verb == "put":
            return self.runs.received(upload.key, sha256="00", size=1, at=self.at)
        assert verb == "fail"
        return self.runs.upload_failed(self.project, upload.run_id, upload.id, message="s3 said 502", at=self.at)

    def statuses(self):
        return [str(run.status_at(self.at)) for run in self.runs.all("b1")]


@pytest.mark.parametrize(
    ("events", "statuses"),
    [
        (["register", "put 1"], ["pending"]),
        (["register", "put 1", "finalize"], ["processed"]),
        (["register", "finalize"], ["pending"]),
        (["register", "finalize", "put 1"], ["processed"]),
        (["register", "register", "put 1", "finalize"], ["pending"]),
        (["register", "register", "put 1", "finalize", "fail 2"], ["processed"]),
        (["register", "fail 1", "finalize"], ["failed"]),
        (["register", "finalize", "fail 1"], ["failed"]),
        (["register", "finalize", "register", "put 1"], ["pending"]),
        (["register", "finalize", "register", "put 1", "put 2"], ["processed"]),
        (["register", "put 1", "finalize", "register"], ["processed", "pending"]),
        (["register", "put 1", "finalize", "register", "put 2"], ["processed", "pending"]),
        (["register", "put 1", "finalize", "register", "put 2", "finalize"], ["processed", "processed"]),
        (["register", "put 1", "finalize", "finalize"], ["processed"]),
    ],
)
def test_a_run_leaves_pending_once_finalized_and_its_uploads_are_terminal(events, statuses):
    assert Story().play(*events).statuses() == statuses


@pytest.mark.parametrize(
    ("events", "answer"),
    [
        (["finalize"], RUN_NOT_FOUND),
        (["register", "finalize"], State.PENDING),
        (["register", "put 1", "finalize"], State.PROCESSING),
        (["register", "put 1", "finalize", "finalize"], State.PROCESSED),
        (["register", "fail 1", "finalize", "finalize"], State.FAILED),
        (["register", "fail 1"], State.FAILED),
        (["register", "fail 1", "fail 1"], State.FAILED),
        (["register", "put 1", "fail 1"], State.PROCESSED),
        (["register", "fail 1", "put 1", "fail 1"], State.FAILED),
    ],
)
def test_finalize_and_upload_failed_answer_the_state_after_the_call(events, answer):
    assert Story().play(*events).answers[-1] == answer


def test_a_run_passes_through_processing_and_remembers_when():
    story = Story().play("register", "put 1", "finalize")
    (run,) = story.runs.all()
    assert run.transitions(story.at) == [(State.PENDING, 0), (State.PROCESSING, 200), (State.PROCESSED, 220)]


def test_an_upload_still_being_parsed_holds_its_run_until_it_is_parsed():
    story = Story().play("register")
    story.runs.received(story.uploads[0].key, sha256="00", size=1, at=100)
    assert story.runs.finalize(story.project, "b1", at=110) is State.PENDING
    assert story.runs.all()[0].transitions(200) == [
        (State.PENDING, 0),
        (State.PROCESSING, 120),
        (State.PROCESSED, 140),
    ]


def test_a_second_put_replaces_the_content_and_parses_no_second_time():
    story = Story().play("register", "put 1")
    story.runs.received(story.uploads[0].key, sha256="11", size=2, at=story.at)
    upload = story.uploads[0]
    assert (upload.puts, upload.sha256, upload.put_at, upload.parsed_at) == (2, "11", 100, 120)


def test_only_the_first_register_of_a_new_build_conflicts_with_another():
    story = Story()
    with story.runs.opening(story.project, "b1") as first, story.runs.opening(story.project, "b1") as second:
        assert (first, second) == (None, CONFLICT)
    with story.runs.opening(story.project, "b1") as alone:
        assert alone is None
        story.play("register")
    with story.runs.opening(story.project, "b1") as one, story.runs.opening(story.project, "b1") as other:
        assert (one, other) == (None, None)


def test_a_run_without_uploads_is_not_finalized():
    story = Story()
    story.runs.open_run(story.project, "b1", at=0, processing_us=PROCESSING_US)
    assert story.play("finalize").answers == [NO_UPLOADS]


def test_builds_of_another_project_are_not_seen():
    story = Story().play("register")
    other = story.runs.open_project("other", "till")
    upload = story.uploads[0]
    assert story.runs.finalize(other, "b1", at=100) == RUN_NOT_FOUND
    assert story.runs.upload_failed(other, upload.run_id, upload.id, message="", at=100) == UPLOAD_NOT_FOUND


def test_a_closed_project_is_opened_by_no_token():
    runs = Runs()
    runs.open_project("token", "shop")
    runs.close_project("token")
    assert runs.project("token") is None


@given(st.lists(st.sampled_from(["register", "finalize", "put 1", "put 2", "fail 1", "fail 2"]), max_size=12))
def test_a_run_never_goes_back_whatever_happens(events):
    order = {"pending": 0, "processing": 1, "processed": 2, "failed": 2}
    story = Story()
    seen = []
    for event in events:
        verb, _, number = event.partition(" ")
        if verb in ("put", "fail") and len(story.uploads) < int(number):
            continue
        story.play(event)
        now = [order[status] for status in story.statuses()]
        assert all(later >= earlier for earlier, later in zip(seen, now, strict=False))
        assert all(settled == 2 for settled in now[:-1])
        seen = now
