"""Encodings of a report: the declared one, the first byte that does not fit it, and what the bytes may be instead."""

import codecs
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from lxml import etree

from bridge.domain.junit.result import Invalid

DEFAULT: Final = "utf-8"  # of XML without byte order mark and declaration
BLANKS: Final = b" \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # bytes; version, encoding and standalone take a tenth of it, even in UTF-16
SAMPLE_SIZE: Final = 4096  # bytes from the first bad line on: a few hundred characters distinguish Han from Latin
WRITE_ENCODING: Final = "Declare the encoding that the report is written in, or write UTF-8."

WIDER: Final = {"gb2312": "gbk", "shift_jis": "cp932", "euc-kr": "cp949"}  # declared: written
MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class DeclaredEncoding(NamedTuple):
    """The encoding of a file in lower case, and whether the file itself states it."""

    name: str
    stated: bool


class EncodingFault(NamedTuple):
    """The first byte that does not fit the encoding, its line (from 1), and the bytes around it."""

    byte: int
    line: int
    sample: bytes


def trim(data: bytes) -> tuple[bytes, int]:
    """Return a document without leading blanks, and how many lines were removed; a byte order mark stays.

    XML forbids blanks before a declaration, but some runners write them.
    """
    mark = next((mark for mark, _ in MARKS if data.startswith(mark)), b"")
    body = data[len(mark) :]
    wide = body[:1] == b"\0" or body[1:2] == b"\0"
    rest = _trim_wide(body) if wide else body.lstrip(BLANKS)
    if not rest:
        return b"", 0
    return mark + rest, data[: len(data) - len(rest)].count(b"\n")


def _trim_wide(body: bytes) -> bytes:
    blanks = {bytes((blank, 0)) for blank in BLANKS} | {bytes((0, blank)) for blank in BLANKS}
    at = 0
    while body[at : at + 2] in blanks:
        at += 2
    return body[at:]


def declared(trimmed: bytes) -> DeclaredEncoding:
    """Return the encoding that lxml will use: from the byte order mark, else from the XML declaration."""
    for mark, name in MARKS:
        if trimmed.startswith(mark):
            return DeclaredEncoding(name, stated=True)
    head = trimmed[:MAX_DECLARATION_SIZE]
    for unit in ("ascii", "utf-16-le", "utf-16-be"):
        before, end, _ = head.partition("?>".encode(unit))
        if not (end and before.startswith("<?xml".encode(unit))):
            continue
        found = _read(before + end + "<x/>".encode(unit))  # lxml parses the declaration, followed by an empty document
        if found:
            return DeclaredEncoding(
                found,
                stated="encoding".encode(unit) in before,  # lxml returns utf-8 if none is declared
            )
    return DeclaredEncoding(DEFAULT, stated=False)


def _read(document: bytes) -> str | None:
    try:
        encoding = etree.fromstring(document, etree.XMLParser(resolve_entities=False)).getroottree().docinfo.encoding
    except etree.XMLSyntaxError:
        return None
    return encoding.lower() if encoding else None


EVERY_ASCII = bytes(range(128)) + b"\x1b$B!!\x1b(B"  # and a shift sequence of ISO-2022


class EncodingChecker:
    """Decodes the bytes of a file and records the first that does not fit its encoding, by Python's codecs.

    `lines`: line ends that were removed before the first byte.
    """

    def __init__(self, encoding: str, lines: int = 0) -> None:
        self.fault: EncodingFault | None = None
        self._lines = lines
        self._decoder: codecs.IncrementalDecoder | None = None
        try:
            self._decoder = codecs.getincrementaldecoder(encoding)()
            # False for encodings with shift states (utf-7, hz, iso-2022), in which ASCII bytes have other meanings.
            self._keeps_ascii = EVERY_ASCII.decode(encoding, errors="replace") == EVERY_ASCII.decode("ascii")
        except LookupError:  # supported by lxml but not by Python: no explanation possible
            return

    @property
    def readable(self) -> bool:
        """Return whether Python's codec has decoded everything so far."""
        return self._decoder is not None and self.fault is None

    def feed(self, piece: bytes) -> None:
        if self.fault or self._decoder is None:
            return
        if not (self._keeps_ascii and piece.isascii() and not self._decoder.getstate()[0]):
            try:
                self._decoder.decode(piece)
            except UnicodeDecodeError as error:
                self.fault = self._fault(error)
            except UnicodeError:  # the codec requires a byte order mark: no explanation possible
                self._decoder = None
        self._lines += piece.count(b"\n")

    def _fault(self, error: UnicodeDecodeError) -> EncodingFault:
        seen = error.object
        line_start = seen.rfind(b"\n", 0, error.start) + 1
        line = self._lines + seen.count(b"\n", 0, error.start) + 1
        return EncodingFault(seen[error.start], line, seen[line_start : error.start + SAMPLE_SIZE])


def _wider_encoding(encoding: str, sample: bytes) -> str | None:
    wider = WIDER.get(encoding)
    return wider if wider and decodes(sample, wider) else None


def wrong_encoding(
    encoding: DeclaredEncoding, fault: EncodingFault | None, *, line: int, column: int | None
) -> Invalid:
    """Return the result for a file whose bytes do not fit its encoding.

    `line` and `column` are lxml's, used if `fault` is None.
    """
    name = encoding.name
    claim = f"it declares {name}" if encoding.stated else f"it declares no encoding, which means {name}"
    if fault is None:
        return Invalid(
            reason="encoding",
            found=f"{claim}, but its bytes are not valid {name}, at line {line}.",
            remedy=WRITE_ENCODING,
            line=line,
            column=column,
        )
    wider = _wider_encoding(name, fault.sample)
    likely = (wider,) if wider else candidates(fault.sample)
    looks = f"; it looks like {alternatives(likely)}" if likely and likely != (name,) else ""
    return Invalid(
        reason="encoding",
        found=f"{claim}, but byte 0x{fault.byte:02x} at line {fault.line} is not valid {name}{looks}.",
        remedy=WRITE_ENCODING,
        line=fault.line,
    )


def narrow_utf16(trimmed: bytes) -> Invalid | None:
    """Return the result for a file that declares UTF-16 but has one-byte characters; None for others.

    .NET's StringWriter writes such declarations.
    """
    declaration, end, _ = trimmed[:MAX_DECLARATION_SIZE].partition(b"?>")
    if not end or b"utf-16" not in declaration.lower():
        return None
    return Invalid(
        reason="encoding",
        found="it declares utf-16, but its characters are one byte wide; it looks like utf-8.",
        remedy=WRITE_ENCODING,
        line=1,
    )


CHINESE, WESTERN = "gb18030", "windows-1252"
UTF_8: Final = "utf-8"
MARGIN: Final = 3  # one encoding must explain the bytes this many times better than the other
ASCII_TO_BLANK: Final = bytes(0x20 if byte < 0x80 else byte for byte in range(256))
MIN_HAN: Final = 2  # different common Han characters: a single pair of bytes may be two accented letters
MIN_LETTERS: Final = 2  # single accented letters, if the bytes are also gb18030; one in a word is enough

COMMON_HAN: Final = frozenset(
    # The first 560 of Jun Da's Modern Chinese Character Frequency List: four fifths of running text.
    # https://lingua.mtsu.edu/chinese-computing/statistics/char/list.php?Which=MO
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成"
    "方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工"
    "使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表"
    "化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结"
    "反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难"
    "且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笑飞风步改收根干造"
    "言联持组每济车亲极林服快办议往元英士证近失转夫令准布始怎呢存未远叫台单影具罗字爱击流备兵连调深商算质团集百需价花党华城"
    "石级整府离况亚请技际约示复病息究线似官火断精满支视消越器容照须九增研写称企八功吗包片史委乎查轻易早曾除农找装广显吧阿李"
    # And words of tests and their messages: expected, actual, timeout, exception, log in, basket, order …
    "测试败错误异预期超响络登录注册密码户订购付款退库删异步添编辑列页按钮索排序选择验例块函参索引输入栏状态返缺少警版默键值"
    "空符串址域端浏览器载缓队锁线池栈溢堆终止启停校跳转拒绝限角浮精度配置环境依赖脚初始销毁模拟场景断言覆盖率捕获抛创"
)

# Letters that occur singly in Western words. Other single ones, such as ł, ą or ğ, count against a Western encoding.
LETTERS: Final = frozenset(
    bytes((byte,)) for byte in "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüœŒ".encode(WESTERN)
)
ASCII: Final = bytes(range(0x80))
FIRST_SMALL: Final = 0xDF  # ß; all after it but ÷ are lower case
STRANGERS: Final = frozenset(bytes((byte,)) for byte in b"\xb3\xb9\xf0\xfd\xfe")
MIN_USUAL: Final = 4  # an encoding is named only if one in this many characters is common in it
MAX_LETTERS_TOGETHER: Final = 2  # accented letters in a row in Western text; longer runs are another script


def candidates(sample: bytes) -> tuple[str, ...]:
    """Return the encodings that a sample with non-ASCII bytes may be in, named as in XML declarations.

    One if `weigh`, which repair follows, can choose. Several if it cannot and the bytes are plausible text in more than
    one: Big5 and EUC-KR share their byte ranges with GBK. None if nothing is plausible.
    """
    if not sample.isascii() and decodes(sample, UTF_8):
        return (UTF_8,)
    chosen = weigh(sample, [name for name in (CHINESE, WESTERN) if decodes(sample, name)])
    if chosen:
        return ("gbk" if chosen == CHINESE else chosen,)
    possible = tuple(name for name, is_usual in USUAL.items() if _makes_text(sample, name, is_usual))
    possible += (WESTERN,) if _may_be_western(sample) else ()
    return () if possible in (("gbk",), (WESTERN,)) else possible  # `weigh` found the evidence insufficient for it


def weigh(sample: bytes, fits: Collection[str]) -> str | None:
    """Return gb18030 or windows-1252 if the sample is clear evidence for one of them, else None.

    `fits`: the codecs that can decode the whole file. Common Han characters are evidence for gb18030; as windows-1252
    they would be runs of signs and capitals. Single accented letters among ASCII are evidence for windows-1252; as
    gb18030 they would be rare Han or invalid. If most of the sample is valid UTF-8, only some bytes are wrong and
    neither fits.
    """
    if _looks_like_utf_8(sample):
        return None
    characters = [character for character in sample.decode(CHINESE, errors="ignore") if _is_letter_like(character)]
    han = [character for character in characters if character in COMMON_HAN]
    runs = sample.translate(ASCII_TO_BLANK).split()
    letters = sum(run in LETTERS for run in runs)
    against = sum(len(run) for run in runs if len(run) > 2 or run in STRANGERS)
    # In EUC-KR each pair of the most common rows is a syllable, so one rare Han is enough to suspect Korean.
    enough_han = len(characters) if _may_be_korean(runs) else len(characters) / 2
    if CHINESE in fits and len(set(han)) >= MIN_HAN and len(han) >= enough_han and 2 * len(han) > MARGIN * letters:
        return CHINESE
    enough = letters >= MIN_LETTERS or CHINESE not in fits or _is_within_a_word(sample)
    return WESTERN if WESTERN in fits and enough and letters > MARGIN * max(2 * len(han), against) else None


def _may_be_korean(runs: list[bytes]) -> bool:
    pairs = (run[at : at + 2] for run in runs for at in range(0, len(run), 2))
    return all(map(USUAL["euc-kr"], pairs))


def _is_within_a_word(sample: bytes) -> bool:
    """Return whether an accented letter stands between lower-case ones; in gb18030 it is a rare Han."""
    return any(
        sample[at - 1 : at].islower() and sample[at + 1 : at + 2].islower()
        for at, byte in enumerate(sample)
        if byte >= FIRST_SMALL and bytes((byte,)) in LETTERS
    )


def _looks_like_utf_8(sample: bytes) -> bool:
    """Return whether most non-ASCII bytes are valid UTF-8 that Chinese in gb18030 rarely yields by chance."""
    sound = [character for character in sample.decode(UTF_8, errors="ignore") if _is_usual_in_utf_8(character)]
    above = len(sample.translate(None, ASCII))
    return 2 * len("".join(sound).encode()) > above


def _is_usual_in_utf_8(character: str) -> bool:
    return "\x80" <= character <= "\xff" or character >= "\u0800"


def _is_letter_like(character: str) -> bool:
    return character > "\x7f" and not (
        "\u2000" <= character < "\u2e00" or "\u3000" <= character < "\u3040" or "\uff00" <= character < "\U00010000"
    )


def alternatives(names: Sequence[str]) -> str:
    """Return names as a list in prose: `gbk, big5 or euc-kr`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def decodes(sample: bytes, encoding: str) -> bool:
    """Return whether a sample, which may end within a character, is valid in an encoding."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


USUAL: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "gbk": lambda pair: b"\xb0\xa1" <= pair <= b"\xd7\xf9" and pair[1] >= 0xA1,  # GB 2312's first level
    "big5": lambda pair: b"\xa4\x40" <= pair <= b"\xc6\x7e",  # its first level
    "euc-kr": lambda pair: b"\xb0\xa1" <= pair <= b"\xc8\xfe",  # Hangul
    "shift_jis": lambda pair: b"\x82\x9f" <= pair <= b"\x83\x96" or b"\x88\x9f" <= pair <= b"\x98\x72",  # kana, level 1
}
"""Two-byte encodings, and which pairs of bytes are common in each."""


def _makes_text(sample: bytes, encoding: str, is_usual: Callable[[bytes], bool]) -> bool:
    if not decodes(sample, encoding):
        return False
    characters = sample.decode(encoding, errors="ignore")
    pairs = [pair for character in characters if len(pair := character.encode(encoding)) > 1]
    return bool(pairs) and MIN_USUAL * sum(map(is_usual, pairs)) >= len(pairs)


def _may_be_western(sample: bytes) -> bool:
    runs = sample.translate(ASCII_TO_BLANK).split()
    return all(
        len(run) <= MAX_LETTERS_TOGETHER and all(bytes((byte,)) in LETTERS for byte in run) for run in runs
    ) and bool(runs)
