import pytest

from tests.unit.settings.conftest import LOOPBACK, ROUTE

CHECK = '[codearts]\ncheck_endpoint = "https://check.test"\n'
TABLE = "[routes.code_check]\n"
TASK = 'task_id = "e2acda04fab44eb991b9f28c00000000"\n'


@pytest.mark.parametrize("who", [TASK, 'job_id = "abc"\n', TASK + 'job_id = "abc"\n'])
def test_a_task_or_a_record_can_be_asked_about(loads, who):
    code_check = loads(LOOPBACK + CHECK + ROUTE + TABLE + who).routes[0].code_check
    assert (code_check.max_major, code_check.on_missing, code_check.timeout.total_seconds()) == (None, "report", 120)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            LOOPBACK + CHECK + ROUTE + TABLE,
            "routes[0].code_check.task_id: is missing. Name the task of CodeArts Check, or take the table out.",
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + 'task_id = "a/b"\n',
            (
                "routes[0].code_check.task_id: is no id of CodeArts Check: 1 to 32 letters and digits. "
                "Copy it from the address of its page in CodeArts Check."
            ),
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + TASK + f'job_id = "{"x" * 33}"\n',
            (
                "routes[0].code_check.job_id: is no id of CodeArts Check: 1 to 32 letters and digits. "
                "Copy it from the address of its page in CodeArts Check."
            ),
        ),
        (
            LOOPBACK + CHECK + ROUTE + TABLE + TASK + 'timeout = "0s"\n',
            'routes[0].code_check.timeout: is nought, so Check would never be asked. Write "10s" or more.',
        ),
        (
            LOOPBACK + ROUTE + TABLE + TASK,
            (
                "codearts.check_endpoint: is missing, and a route has a code_check table. "
                "Write it like https://codearts-check.cn-north-4.myhuaweicloud.com."
            ),
        ),
    ],
)
def test_a_table_that_could_never_bring_a_report_is_refused(complains, text, complaint):
    assert complains(text) == [complaint]
