"""Names of submitted builds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.submission import MAX_BUILD_NO_CHARACTERS, submitted_build_no


@pytest.mark.parametrize("build_id", ["7", "github-17483939201", "a.b_c-d", "W" * MAX_BUILD_NO_CHARACTERS])
def test_a_plain_build_id_is_its_own_name(build_id):
    assert submitted_build_no(build_id) == build_id


@pytest.mark.parametrize(
    ("build_id", "start"),
    [
        ("feature/x#17", "feature-x-17~"),
        ("../../etc/passwd", "etc-passwd~"),
        ("..", "build~"),
        ("构建 7", "7~"),
        ("x" * 200, f"{'x' * 42}~"),
        ("\udcff", "build~"),
    ],
)
def test_any_other_one_is_named_by_a_digest(build_id, start):
    name = submitted_build_no(build_id)
    assert name.startswith(start)
    assert len(name) == len(start) + 20


@given(st.text(min_size=1))
def test_a_name_is_safe_in_keys_paths_and_links_and_names_itself(build_id):
    name = submitted_build_no(build_id)
    assert 1 <= len(name) <= MAX_BUILD_NO_CHARACTERS
    assert name.isascii()
    assert name[0].isalnum()
    assert "/" not in name
    assert submitted_build_no(name) == name


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_two_build_ids_have_two_names(build_ids):
    names = {submitted_build_no(build_id) for build_id in build_ids}
    assert len(names) == 2 or build_ids[0] in names or build_ids[1] in names
