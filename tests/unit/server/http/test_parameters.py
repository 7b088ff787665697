import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import UploadMetadata
from bridge.errors import BadParameter
from bridge.server.http.parameters import Parameters, read_metadata, read_parameters, read_query

JOB = "0123456789abcdefABCDEF0123456789"
GOOD = {"job_id": JOB, "build_no": "7", "node_id": "n-1"}


def test_the_reference_pages_parameters_are_read():
    assert read_parameters(GOOD) == Parameters(job_id=JOB, build_no=7, node_id="n-1")


@pytest.mark.parametrize("query", [{"job_id": JOB, "build_no": "7"}, {**GOOD, "node_id": ""}])
def test_a_missing_node_is_taken_as_default(query):
    assert read_parameters(query).node_id == "default"


@pytest.mark.parametrize("build_no", ["1", "2147483647"])
def test_every_number_that_codearts_counts_to_is_taken(build_no):
    assert read_parameters({**GOOD, "build_no": build_no}).build_no == int(build_no)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("job_id", "", "job_id is missing"),
        ("job_id", "a" * 31, "not 32 digits and letters"),
        ("job_id", "a" * 33, "not 32 digits and letters"),
        ("job_id", "a" * 31 + "-", "not 32 digits and letters"),
        ("job_id", "٣" * 32, "not 32 digits and letters"),
        ("build_no", "", "INCREASENUM"),
        ("build_no", "20240626.1", 'build_no is "20240626.1", which is BUILDNUMBER. Use INCREASENUM'),
        ("build_no", "0", "not a whole number"),
        ("build_no", "2147483648", "not a whole number"),
        ("build_no", "-1", "not a whole number"),
        ("build_no", "1e3", "not a whole number"),
        ("build_no", "٣", "not a whole number"),
        ("build_no", "9" * 5000, "not a whole number"),
        ("node_id", "n" * 33, "not 1 to 32"),
        ("node_id", "a_b", "not 1 to 32"),
        ("job_id", "${JOB_ID}", r'job_id is "\$\{JOB_ID\}", a variable'),
        ("build_no", "$INCREASENUM", r'build_no is "\$INCREASENUM", a variable'),
        ("node_id", "${node}", "node_id is .* a variable"),
    ],
)
def test_a_bad_parameter_is_told_in_two_sentences(name, value, says):
    with pytest.raises(BadParameter, match=says) as caught:
        read_parameters({**GOOD, name: value})
    assert str(caught.value).count(". ") == 1
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["job_id", "build_no", "node_id", "branch", "complete"])
def test_whoever_says_two_things_under_one_name_is_asked_which(name):
    with pytest.raises(BadParameter, match=f'{name} is given twice, as "a" and as "b". Send it once.'):
        read_query([(name, "a"), ("other", "x"), (name, "b")])


def test_the_same_said_twice_is_said_once_and_other_names_are_left_alone():
    pairs = [("build_no", "7"), ("build_no", " 7"), ("other", "x"), ("other", "y")]
    assert read_query(pairs) == {"build_no": "7"}


def test_the_query_comes_before_the_form():
    said, complete = read_metadata({"branch": "main", "complete": "true"}, {"branch": "other", "commit": "c0ffee"})
    assert said == UploadMetadata(branch="main", commit="c0ffee")
    assert complete


@pytest.mark.parametrize(("word", "complete"), [("true", True), ("TRUE", True), ("false", False), ("", False)])
def test_complete_is_true_or_false(word, complete):
    assert read_metadata({}, {"complete": word}) == (UploadMetadata(), complete)


def test_nothing_need_be_said():
    assert read_metadata({"job_id": JOB}, {}) == (UploadMetadata(), False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complete", "yes"),
        ("branch", "${codeBranch}"),
        ("commit", "x-${COMMIT}"),
        ("job_name", "$NAME"),
        ("branch", "b" * 1025),
        ("commit", "c0ffee\x00"),
        ("branch", "ma\ud800in"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(name, value):
    for query, form in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(BadParameter, match=name):
            read_metadata(query, form)


def test_a_dollar_inside_a_branch_is_a_name_like_any_other():
    assert read_metadata({"branch": "fix-$cost"}, {})[0].branch == "fix-$cost"


@given(st.dictionaries(st.sampled_from(["job_id", "build_no", "node_id", "branch", "complete"]), st.text()))
def test_any_text_is_read_or_refused(query):
    try:
        parameters = read_parameters(query)
        read_metadata(query, query)
    except BadParameter as error:
        assert str(error).isprintable()  # noqa: PT017 -- both outcomes are right
    else:
        assert 1 <= parameters.build_no < 2**31
