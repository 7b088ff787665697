import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.server.http.downloads import disposition, file_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("TEST-a.xml", "refused-7-TEST-a.xml"),
        ("报告.xml", "refused-7-报告.xml"),
        ("../../etc/passwd", "refused-7-passwd"),
        ("C:\\run\\a.xml", "refused-7-a.xml"),
        ("a.zip!dir/b.xml", "refused-7-b.xml"),
        ('a"; x="\r\n.xml', "refused-7-a__ x____.xml"),
        ("x" * 500 + ".xml", "refused-7-" + "x" * 96 + ".xml"),
        ("", "refused-7-"),
    ],
)
def test_a_file_is_saved_under_a_name_that_can_do_no_harm(name, safe):
    assert file_name("refused-7", name) == safe


@given(name=st.text())
def test_a_header_holds_any_name_in_ascii_and_gives_it_back(name):
    safe = file_name("report-7", name)
    said = disposition(safe)
    assert re.fullmatch(r"""attachment; filename="[A-Za-z0-9._ ()-]+"; filename\*=UTF-8''[A-Za-z0-9._~%-]+""", said)
    assert unquote(said.partition("''")[2]) == safe


def test_who_reads_only_the_plain_name_saves_it_under_what_ascii_has_of_it():
    said = disposition("refused-7-报告 (2).xml")
    assert said.startswith('attachment; filename="refused-7-__ (2).xml"; ')
