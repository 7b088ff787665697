"""Where a file stops being in its encoding, what may precede its first character, and what its bytes may be instead."""

import pytest

from bridge.domain.junit.encoding import EncodingChecker, is_utf_8, trim
from bridge.domain.junit.encoding_guess import CHINESE, WESTERN, alternatives, candidates, weigh
from tests.unit.domain.junit.repair.test_encoding_detection import CHINESE_TEXTS, UNDECIDABLE, WESTERN_TEXTS, report


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_first_bad_byte_is_found_across_pieces(size: int):
    data = "测试\n测试\n好".encode() + b"\xd6\xd0\n"
    checker = EncodingChecker("utf-8")
    for start in range(0, len(data), size):
        checker.feed(data[start : start + size])
    assert checker.fault is not None
    assert (checker.fault.byte, checker.fault.line) == (0xD6, 3)


def test_good_bytes_leave_no_fault_and_unknown_encodings_are_not_watched():
    for encoding, data in (("gbk", "测试".encode("gbk")), ("", b"\xff\xff")):
        checker = EncodingChecker(encoding)
        for start in range(len(data)):
            checker.feed(data[start : start + 1])
        assert checker.fault is None


@pytest.mark.parametrize(
    ("data", "rest", "lines"),
    [
        (b"<a/>", b"<a/>", 0),
        (b" \n\r\n\t<a/>\n", b"<a/>\n", 2),
        (b"\xef\xbb\xbf\n<a/>", b"\xef\xbb\xbf<a/>", 1),
        ("\n\n<a/>".encode("utf-16-le"), "<a/>".encode("utf-16-le"), 2),
        (b"\xfe\xff" + "\n<a/>".encode("utf-16-be"), b"\xfe\xff" + "<a/>".encode("utf-16-be"), 1),
    ],
)
def test_blanks_before_the_document_are_cut_off_and_the_mark_is_kept(data: bytes, rest: bytes, lines: int):
    assert trim(data) == (rest, lines)


TAIWANESE = [
    "測試失敗",
    "登入成功",
    "付款失敗",
    "購物車",
    "使用者名稱或密碼錯誤",
    "資料庫連線逾時",
    "預期結果與實際不符",
]
KOREAN = ["테스트 실패", "로그인 성공", "장바구니", "비밀번호가 틀렸습니다", "데이터베이스 연결 시간 초과"]
JAPANESE = ["テスト", "ログイン失敗", "データベース接続がタイムアウトしました"]


@pytest.mark.parametrize("text", CHINESE_TEXTS)
def test_chinese_bytes_look_like_gbk_and_nothing_else(text: str):
    assert candidates(f'<testcase name="{text}"/>'.encode("gbk")) == ("gbk",)


@pytest.mark.parametrize("text", WESTERN_TEXTS)
def test_western_bytes_look_like_windows_1252_and_nothing_else(text: str):
    assert candidates(report(text).encode(WESTERN)) == (WESTERN,)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((text, "big5") for text in TAIWANESE),
        *((text, "euc-kr") for text in KOREAN),
        *((text, "shift_jis") for text in JAPANESE),
    ],
)
def test_the_right_name_is_among_those_that_are_said_wherever_gbk_is_reported(text: str, encoding: str):
    assert encoding in candidates(report(text).encode(encoding))


@pytest.mark.parametrize(("text", "encoding"), UNDECIDABLE)
def test_where_repair_dares_not_choose_no_single_candidate_of_its_own_is_reported(text: str, encoding: str):
    assert candidates(report(text).encode(encoding)) not in (("gbk",), (WESTERN,))


@pytest.mark.parametrize("text", ["测试", "crème", "テスト"])
def test_utf_8_is_recognised(text: str):
    assert candidates(text.encode()) == ("utf-8",)


@pytest.mark.parametrize(("text", "encoding"), [("中", "gbk"), ("привет", "windows-1251"), ("δοκιμή", "windows-1253")])
def test_what_looks_like_nothing_in_particular_is_called_nothing(text: str, encoding: str):
    assert candidates(text.encode(encoding)) == ()


def test_a_candidate_that_cannot_read_the_file_is_not_chosen():
    assert weigh("测试失败".encode("gbk"), [WESTERN]) is None
    assert weigh("crème brûlée".encode(WESTERN), [CHINESE]) is None


@pytest.mark.parametrize(
    ("names", "said"), [(("gbk",), "gbk"), (("gbk", "big5"), "gbk or big5"), (("a", "b", "c"), "a, b or c")]
)
def test_alternatives_read_as_a_sentence_lists_them(names: tuple[str, ...], said: str):
    assert alternatives(names) == said


@pytest.mark.parametrize(
    ("name", "verdict"), [("utf-8", True), ("UTF8", True), ("us-ascii", True), ("gbk", False), ("klingon-8", False)]
)
def test_utf_8_and_ascii_are_utf_8(name: str, verdict: bool):  # noqa: FBT001
    assert is_utf_8(name) == verdict
