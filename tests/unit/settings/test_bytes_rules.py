import pytest

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
