import pytest

from bridge.settings.advice import advice
from bridge.settings.bytes_rules import S3Place, s3_place

BASE = '[callers]\nauth = "open"\n[server]\nhost = "127.0.0.1"\n[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data/spool", None),
        ("/var/spool", None),
        ("s3://bucket", S3Place(bucket="bucket", prefix="")),
        ("s3://bucket/", S3Place(bucket="bucket", prefix="")),
        ("s3://my.bucket-1/a", S3Place(bucket="my.bucket-1", prefix="a/")),
        ("s3://bucket/team=a/b_c/", S3Place(bucket="bucket", prefix="team=a/b_c/")),
    ],
)
def test_a_place_is_a_folder_or_a_bucket_with_what_keys_begin_with(text, place):
    assert s3_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://host/path",
        "s3://",
        "s3://b",
        "s3://Bucket/x",
        "s3://bucket//x",
        "s3://bucket/a/../b",
        "s3://bucket/./a",
        "s3://bucket/a b",
        "s3://bucket/a?x=1",
        "s3://bucket/a%2e",
        "s3://bucket/ä",
        "s3://key:secret@bucket/a",
        "s3://bucket/" + "a" * 600,
        "s3://bucket/a\n",
    ],
)
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError, match="is no"):
        s3_place(text)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ('[store]\nspool = "s3://B"', "store.spool: is no place in S3."),
        ('[store]\nspool = "ftp://x"', "store.spool: is no folder."),
        ('[s3]\naccess_key_id = "only"', "s3: has one of access_key_id and secret_access_key without the other."),
        ('[s3]\nendpoint_url = "s3.example"', "s3.endpoint_url: is no address"),
    ],
)
def test_what_cannot_be_used_is_complained_of(complains, tables, complaint):
    (said,) = complains(tables + "\n" + BASE)
    assert said.startswith(complaint)


@pytest.mark.parametrize(
    ("spool", "archive"),
    [
        ("data", "data"),
        ("data", "data/archive"),
        ("data/kept/spool", "data/kept"),
        ("s3://bucket", "s3://bucket/archive"),
        ("s3://bucket/a/spool", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket/a/"),
    ],
)
def test_an_archive_in_the_spool_or_around_it_is_refused(complains, spool, archive):
    (said,) = complains(f'[store]\nspool = "{spool}"\narchive = "{archive}"\n{BASE}')
    assert said.startswith("store.archive: lies in the spool, or the spool in it.")


@pytest.mark.parametrize(
    ("spool", "archive"),
    [
        ("data/spool", "data/archive"),
        ("s3://bucket/a", "s3://bucket/ab"),
        ("s3://one", "s3://two"),
        ("data", "s3://b-1"),
    ],
)
def test_each_in_a_place_of_its_own_is_taken(loads, spool, archive):
    assert loads(f'[store]\nspool = "{spool}"\narchive = "{archive}"\n{BASE}').store.archive == archive


def test_an_s3_that_nothing_uses_and_one_that_can_be_read_on_the_way_are_said(loads):
    account = '[s3]\nendpoint_url = "http://s3.lan:9000"\n'
    said = advice(loads(account + BASE))
    assert [line for line in said if line.startswith("s3: is not used")]
    said = advice(loads(account + '[store]\nspool = "s3://bucket"\n' + BASE))
    assert [line for line in said if line.startswith("s3.endpoint_url: is plain http")]
