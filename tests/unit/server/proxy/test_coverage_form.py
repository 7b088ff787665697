import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadParameter
from bridge.server.proxy.coverage_form import MAX_END_BYTES, CoverageForm

JOB, OTHER = "a1" * 16, "b2" * 16
QUERY = {"job_id": JOB, "build_no": "7"}
FILE = b'--b0\r\nContent-Disposition: form-data; name="files"; filename="c.xml"\r\n\r\n<coverage/>\r\n'
END = b"--b0--\r\n"


def field(name, value, disposition=None, more=""):
    disposition = f'form-data; name="{name}"' if disposition is None else disposition
    return f"--b0\r\nContent-Disposition: {disposition}\r\n{more}\r\n{value}\r\n".encode()


def fed(body, cuts=(), *, content_type="multipart/form-data; boundary=b0", query=QUERY):
    """Return what of a body arrives, in pieces: before its end is known to be good, and all."""
    form = CoverageForm(content_type, query)
    cuts = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in itertools.pairwise(cuts)]
    before = b"".join(form.feed(piece) for piece in pieces)
    return before, before + form.finish()


def is_rejected(body, **other):
    """Return whether a body is rejected in one piece and byte by byte, and its end never arrives."""
    outcomes = set()
    for cuts in ((), range(len(body))):
        try:
            before, _ = fed(body, cuts, **other)
        except BadParameter:
            outcomes.add(True)
        else:
            assert b"--b0--" not in before
            outcomes.add(False)
    assert len(outcomes) == 1
    return outcomes.pop()


GOOD = [
    FILE + END,
    FILE * 3 + END,
    FILE + b"--b0--",
    b"\r\n" + FILE + END,
    field("job_id", JOB) + FILE + END,
    field("job_id", JOB.upper()) + field("build_no", "7") + field("node_id", "n1") + FILE + END,
    FILE + field("job_id", JOB) + END,
    field("job_id", JOB, more="Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\n") + END,
    field("", "<coverage/>", 'form-data; name=files; filename="name in C:\\dir.xml"') + END,
    field("", "<coverage/>", 'form-data; filename="c.xml"; name="files[0]"; filename*=UTF-8\'\'c.xml') + END,
    field("", "-" * 90 + "\r\n--b\r\n--a0--", 'form-data; name="file"; filename="c.xml"') + END,
]


@given(st.sampled_from(GOOD), st.lists(st.integers(1, 300)))
def test_an_honest_form_arrives_whole_but_its_end_only_at_the_end(body, cuts):
    before, whole = fed(body, cuts)
    assert whole == body
    assert b"--b0--" not in before


@pytest.mark.parametrize(
    "body",
    [
        field("job_id", OTHER) + FILE + END,
        field("job_id", "") + FILE + END,
        FILE + field("job_id", OTHER) + END,
        field("job_id", JOB) + field("job_id", OTHER) + FILE + END,
        field("build_no", "8") + FILE + END,
        field("build_no", "07") + FILE + END,
        field("node_id", "n" * 100) + FILE + END,
        field("jobId", JOB) + FILE + END,
        field("job_id[]", OTHER) + FILE + END,
        field("project_id", "p") + FILE + END,
        field("_charset_", "utf-7") + FILE + END,
        # names with two readings
        field("", OTHER, 'form-data; name="files"; name="job_id"') + FILE + END,
        field("", OTHER, 'form-data; name="job_id"; name="files"') + FILE + END,
        field("", OTHER, "form-data; name*=UTF-8''job%5Fid") + FILE + END,
        field("", OTHER, "form-data; name=\"files\"; name*=UTF-8''job_id") + FILE + END,
        field("", OTHER, 'form-data; name*0="job"; name*1="_id"') + FILE + END,
        field("", OTHER, 'form-data; name="job\\_id"') + FILE + END,
        field("", OTHER, 'form-data; name="=?utf-8?q?job=5Fid?="') + FILE + END,
        field("", OTHER, 'form-data; name = "job_id"; name="files"') + FILE + END,
        field("", OTHER, 'form-data; filename="a; name=job_id"; name="files"') + FILE + END,
        field("", OTHER, 'form-data; name=""') + FILE + END,
        field("", OTHER, "form-data") + FILE + END,
        field("", OTHER, 'attachment; name="job_id"') + FILE + END,
        field("files", OTHER, more='Content-Disposition: form-data; name="job_id"\r\n') + FILE + END,
        field("files", OTHER, more=' ;\r\n name="job_id"\r\n') + FILE + END,
        field("job_id", JOB, more="Content-Transfer-Encoding: base64\r\n") + FILE + END,
        field("files", "x", more="Content-Type: multipart/mixed; boundary=c\r\n") + END,
        # delimiters with two readings
        FILE[:-2] + b"\n" + field("job_id", OTHER) + END,
        FILE.replace(b"<coverage/>", b"\n" + field("job_id", OTHER).replace(b"\r\n", b"\n")) + END,
        FILE.replace(b"<coverage/>", b"\r--b0\r" + field("job_id", OTHER)) + END,
        FILE.replace(b"<coverage/>", b" --b0") + END,
        field("job_id", OTHER).replace(b"\r\n", b"\n") + FILE + END,
        b"preamble\r\n" + field("job_id", OTHER) + FILE + END,
        FILE + b"--b0 \r\n" + FILE + END,
        FILE + b"--b0x\r\n" + FILE + END,
        FILE + END + field("job_id", OTHER) + END,
        FILE + END + FILE + END,
        FILE + END + b"x" * MAX_END_BYTES,
        # incomplete
        FILE,
        FILE[:-2],
        FILE[:30],
        field("job_id", OTHER),
        b"coverage",
        b"job_id=" + OTHER.encode(),
    ],
)
def test_a_form_that_may_name_another_build_for_some_server_is_rejected(body):
    assert is_rejected(body)


@pytest.mark.parametrize("query", [{}, {"job_id": OTHER}])
def test_a_job_that_the_query_lacks_is_rejected(query):
    assert is_rejected(field("job_id", JOB) + FILE + END, query=query)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b0",
        'multipart/form-data; boundary="b0"',
        "Multipart/Form-Data;boundary=b0; charset=UTF-8",
        "multipart/form-data; charset=utf-8; boundary=b0",
    ],
)
def test_content_types_that_libraries_send_are_taken(content_type):
    assert fed(FILE + END, content_type=content_type)[1] == FILE + END


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=--",
        "multipart/form-data; boundary=b0; boundary=b1",
        "multipart/form-data; boundary=b1; Boundary=b0",
        "multipart/form-data; boundary*=utf-8''b0",
        'multipart/form-data; boundary="b0',
        'multipart/form-data; boundary="b\\0"',
        "multipart/form-data; boundary=b0, text/plain",
        "multipart/mixed; boundary=b0",
        "application/x-www-form-urlencoded",
    ],
)
def test_a_content_type_with_another_or_with_two_readings_is_rejected(content_type):
    with pytest.raises(BadParameter):
        CoverageForm(content_type, QUERY)
