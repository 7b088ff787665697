import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.server.http.file_names import MAX_PARAMETERS, decode_in_charset, decode_text, file_name
from tests.support.calls import calls_of

NAME = "测试.xml"
UTF_8, GBK = NAME.encode(), NAME.encode("gbk")


def read(*parameters: bytes) -> str | None:
    return file_name(b"; ".join((b"form-data", b'name="files"', *parameters)).decode("latin-1"))


@pytest.mark.parametrize(
    "parameters",
    [
        [b'filename="%s"' % UTF_8],
        [b"filename=" + UTF_8],
        [b"filename*=utf-8''%E6%B5%8B%E8%AF%95.xml"],
        [b"filename*=UTF-8'zh-CN'%e6%b5%8b%e8%af%95.xml"],
        [b"filename*=utf-8''" + UTF_8],
        [b"filename*=gbk''%B2%E2%CA%D4.xml"],
        [b"filename*=GB2312''%B2%E2%CA%D4.xml"],
        [b"filename*0*=utf-8''%E6%B5%8B; filename*1*=%E8%AF%95; filename*2=.xml"],
        [b'filename="??.xml"', b"filename*=utf-8''%E6%B5%8B%E8%AF%95.xml"],
        [b"filename*=utf-8''%E6%B5%8B%E8%AF%95.xml", b'filename="__.xml"'],
        [b'filename="=?utf-8?B?5rWL6K+VLnhtbA==?="', b"filename*=utf-8''%E6%B5%8B%E8%AF%95.xml"],
        [b'filename="=?utf-8?B?5rWL6K+VLnhtbA==?="'],
        [b"filename==?utf-8?B?5rWL6K+VLnhtbA==?="],
        [b'filename="=?UTF-8?Q?=E6=B5=8B=E8=AF=95.xml?="'],
        [b'filename="=?UTF-8?Q?=E6=B5=8B=E8=AF=95?=.xml"'],
        [b'filename="=?gb2312?B?suLK1C54bWw=?="'],
        [b'filename="=?utf-8?B?5rWL6A==?= =?utf-8?B?r5UueG1s?="'],
        [b'filename="%E6%B5%8B%E8%AF%95.xml"'],
        [b'filename="%B2%E2%CA%D4.xml"'],
        [b'filename="%s"' % GBK],
        [b'filename="C:\\ci\\%s"' % GBK],
        [b'filename="\\\\host\\ci\\%s"' % UTF_8],
    ],
    ids=lambda parameters: ascii(b"; ".join(parameters))[2:-1],
)
def test_one_name_is_read_however_a_client_writes_it(parameters):
    assert read(*parameters) == NAME


@pytest.mark.parametrize(
    ("parameter", "name"),
    [
        (b'filename="a%22b.xml"', 'a"b.xml'),
        (b'filename="a\\"b.xml"', 'a"b.xml'),
        (b'filename="a\\b.xml"', "a\\b.xml"),
        (b'filename="a\\\\b.xml"', "a\\b.xml"),
        (b'filename="TEST%20a%281%29%25.xml"', "TEST a(1)%.xml"),
        (b'filename="a%22%E6%B5%8B.xml"', 'a"测.xml'),
        (b"filename=a b.xml", "a b.xml"),
        (b"filename=TEST-a.xml", "TEST-a.xml"),
        (b'filename="%2e%2e/a.xml"', "%2e%2e/a.xml"),
        (b'filename="a b%20c.xml"', "a b%20c.xml"),
        (b'filename="100%.xml"', "100%.xml"),
        (b'filename="100%FF.xml"', "100%FF.xml"),
        (b'filename="a=?b.xml"', "a=?b.xml"),
        (b'filename="=?nope?B?YQ==?="', "=?nope?B?YQ==?="),
        (b'filename="=?utf-8?B?a?="', "=?utf-8?B?a?="),
        (b'filename="=?utf-8?Q?=FF?="', "=?utf-8?Q?=FF?="),
        (b"filename=\"ok.xml\"; filename*=utf-8''%FF.xml", "ok.xml"),
        (b"filename=\"ok.xml\"; filename*=nope''%E6.xml", "ok.xml"),
        (b'filename="ok.xml"; filename*' + b"9" * 5000 + b"*=utf-8''a", "ok.xml"),
        (b'filename="a*b.xml"', "a*b.xml"),
        (b'filename=""', ""),
        (b"", None),
    ],
)
def test_a_name_that_is_not_encoded_stays_as_it_is(parameter, name):
    assert read(parameter) == name


@pytest.mark.parametrize("text", [NAME, "中文.xml", "报.xml", "a中b.xml", "TEST-登录（1）—副本.xml", "測試報告.xml"])
def test_chinese_names_in_gbk_are_legible(text):
    assert decode_text(text.encode("gbk")) == decode_text(text.encode("gbk"), western="cp437") == text


@pytest.mark.parametrize("western", ["cp1252", "cp437"])
@pytest.mark.parametrize("text", ["Prüfung_größe.xml", "größe.xml", "élève à Noël.xml", "señor ñandú.xml"])
def test_western_names_are_not_taken_for_chinese(text, western):
    assert decode_text(text.encode(western), western=western) == text


def test_a_charset_counts_if_the_bytes_fit_it():
    assert decode_in_charset(GBK, "GBK") == decode_in_charset(GBK, "utf-8") == decode_in_charset(GBK, "nope") == NAME
    assert decode_in_charset("é".encode(), "iso-8859-1") == "Ã©"


@pytest.mark.parametrize("parameter", [";", "; a=b", '; filename*="', "; filename*0*=a"])
def test_a_header_of_many_parameters_costs_no_more_than_one_of_some(parameter):
    some, many = (f"form-data; filename*=a{times * parameter}" for times in (MAX_PARAMETERS // 2, 2000))
    assert calls_of(lambda: file_name(many)) <= calls_of(lambda: file_name(some))


def test_a_name_that_is_both_whole_and_continued_is_the_plain_one():
    assert read(b'filename="a.xml"', b"filename*=utf-8''b.xml", b"filename*0*=utf-8''c.xml") == "a.xml"
    assert read(b"filename*=utf-8''b.xml", b"filename*0*=utf-8''c.xml") is None


def test_a_name_may_have_semicolons_and_may_be_continued_line_by_line():
    assert file_name(f'form-data; filename="{MAX_PARAMETERS * ";"}.xml"') == f"{MAX_PARAMETERS * ';'}.xml"
    lines = "; ".join(f"filename*{number}*=%E6%B5%8B{60 * 'x'}" for number in range(60))
    assert file_name(f"form-data; {lines}") == 60 * f"测{60 * 'x'}"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_name_that_can_be_stored(raw):
    decode_text(raw).encode()
    decode_text(raw, western="cp437").encode()
    for header in (raw, b'form-data; filename="' + raw, b"form-data; filename*=" + raw, b"x; filename==?" + raw):
        (file_name(header.decode("latin-1")) or "").encode()
