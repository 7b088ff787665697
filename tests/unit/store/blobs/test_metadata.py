import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import CorruptBlob
from bridge.store.blobs.metadata import BlobMetadata, escaped
from tests.support.labels import label

TEXT = st.text(st.characters(), max_size=3000)


@given(name=TEXT, caller=TEXT.map(lambda text: text.encode("utf-8", "replace").decode()))
def test_every_label_is_ascii_without_blanks_and_fits_where_s3_puts_it(name, caller):
    metadata = label(name=name, caller=caller).metadata()
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 2048
    for value in metadata.values():
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value


@given(name=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=50))
def test_a_label_is_read_back_as_it_was(name):
    said = label(name=name)
    assert BlobMetadata.read(said.metadata()) == said


@pytest.mark.parametrize("gone", label().metadata())
def test_a_label_that_lacks_anything_is_damaged(gone):
    metadata = label().metadata()
    del metadata[gone]
    with pytest.raises(CorruptBlob):
        BlobMetadata.read(metadata)


@pytest.mark.parametrize("wrong", [{"size": "many"}, {"build-no": ""}, {"name": 5}])
def test_a_label_that_means_nothing_is_damaged(wrong):
    with pytest.raises(CorruptBlob):
        BlobMetadata.read(label().metadata() | wrong)


def test_no_character_is_cut():
    assert escaped("a" + "中" * 1000).removeprefix("a") == "%E4%B8%AD" * 71


def test_a_label_of_a_submitted_build_names_its_route_and_its_build_id():
    said = label(job_id="检查 route/1", build_no="7")
    assert BlobMetadata.read(said.metadata()) == said
    assert said.metadata()["job-id"].isascii()
