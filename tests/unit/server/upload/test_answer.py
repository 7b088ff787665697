import pytest

from bridge.errors import Unavailable
from bridge.server.upload.answer import AnswerFormat


@pytest.mark.parametrize("text", [False, True])
def test_an_upload_that_cannot_be_accepted_now_learns_when_to_come_again_in_both_formats(text):
    error = Unavailable("The bridge is short of disk space. Send it again in a while.", retry_after_seconds=60)
    answer = AnswerFormat(files=False, text=text).failure(error)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
