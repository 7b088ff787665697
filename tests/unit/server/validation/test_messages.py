import json

from bridge.domain.junit.validator import validate_bytes
from bridge.server.validation.messages import TransformResult, ValidationResponse, read_response

REPORT = """<testsuites><testsuite name="db"><error message="测试 &lt;1&gt;&#10;"/>
<testcase name="a" file="a.py" line="3"><failure message='"quoted"'/></testcase>
<testcase name="b"><flakyError/></testcase><testcase name="c" status="notrun"/>
</testsuite><testsuite failures="1"><testcase name="c"/></testsuite></testsuites>"""


def test_a_result_comes_through_the_pipe_as_it_was_with_notes_and_first_failures():
    result = validate_bytes(REPORT.encode())
    assert (result.counts.suite_errors, result.counts.disabled, result.highlights.red_totals) == (1, 1, 1)
    response = ValidationResponse((TransformResult(accepted=result, changes=("Left out: 1 x.",)),))
    line = response.to_bytes()
    assert json.loads(line)
    assert read_response(line) == response
