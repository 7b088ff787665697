"""What the bytes of a report may be if they do not fit its encoding: gb18030, windows-1252, UTF-8 or a mixture."""

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from bridge.domain.junit.encoding import UTF_8, WRITE_ENCODING, DeclaredEncoding, EncodingFault, wider_codec
from bridge.domain.junit.result import Invalid

WRITE_VALID_UTF_8: Final = "Configure the test runner to write valid UTF-8: no raw bytes, and no character cut in half."

CHINESE, WESTERN = "gb18030", "windows-1252"
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
WORD_LETTER: Final = re.compile(
    rb"[A-Za-z][\xdf-\xff](?![\x80-\xff])|[A-Z][\xc0-\xde](?![\x80-\xff])|(?<![\x80-\xff])[\xc0-\xff][A-Za-z]"
    rb"|(?<![A-Za-z\x80-\xff])[\xc0\xc5\xc8\xc9\xe0\xe5\xe8\xe9\xec\xed\xf2\xf3\xf6\xf8\xf9](?![A-Za-z\x80-\xff])"
)
"""A letter of windows-1252 beside a letter of ASCII, or alone as a word of its own such as `à`. A lone `Â` or `Ã` is
the first byte of a character in UTF-8 that was cut."""
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
    is_text = WORD_LETTER.search(sample) is not None
    return WESTERN if WESTERN in fits and enough and is_text and letters > MARGIN * max(2 * len(han), against) else None


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


BAD_RUN: Final = re.compile("[\udc80-\udcff]+")
CUT_OR_STRAY: Final = re.compile(
    "[\udcc2-\udcdf]|[\udce0-\udcef][\udc80-\udcbf]?|[\udcf0-\udcf4][\udc80-\udcbf]{0,2}|\udcc0\udc80|[\udc80-\udcc1\udcf5-\udcff]"
)
"""A character of UTF-8 that was cut, or a single byte that is none."""
WITHIN_WORD: Final = re.compile(rb"[A-Za-z][\x80-\xff][A-Za-z]")
"""A letter of any encoding with one byte a character, such as `ü` in cp437."""
ABOVE_ASCII: Final = dict.fromkeys(range(0x80))


class Utf8Survey:
    """Counts what is UTF-8 in a file and what is not; `source` is read once, in pieces of a fixed size.

    In `stray`, the file is UTF-8 except for single bytes or cut characters, and may be repaired by replacing them.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.bad_bytes = 0
        self._sound_bytes = 0  # of characters that other encodings rarely yield by chance
        self._only_short = True  # each run of bad bytes is a stray byte or a cut character
        decoder = codecs.getincrementaldecoder(UTF_8)(errors="surrogateescape")
        for piece in pieces:
            if not piece.isascii() or decoder.getstate()[0]:
                self._count(decoder.decode(piece))
        self._count(decoder.decode(b"", final=True))

    def _count(self, text: str) -> None:
        runs = BAD_RUN.findall(text)
        self.bad_bytes += sum(map(len, runs))
        self._only_short = self._only_short and all(map(CUT_OR_STRAY.fullmatch, runs))
        above = BAD_RUN.sub("", text).translate(ABOVE_ASCII)
        self._sound_bytes += len("".join(filter(_is_usual_in_utf_8, above)).encode())

    def is_stray(self, sample: bytes, fits: Collection[str]) -> bool:
        """Return whether the file is UTF-8 apart from some bytes; arguments as for `weigh`."""
        if not self.bad_bytes or self._sound_bytes > self.bad_bytes:
            return self.bad_bytes > 0
        if not self._only_short or weigh(sample, fits) or WORD_LETTER.search(sample) or WITHIN_WORD.search(sample):
            return False
        return not candidates(sample)


def wrong_encoding(
    encoding: DeclaredEncoding,
    fault: EncodingFault | None,
    *,
    line: int,
    column: int | None,
    survey: Utf8Survey | None = None,
) -> Invalid:
    """Return the result for a file whose bytes do not fit its encoding.

    `line` and `column` are lxml's, used if `fault` is None. `survey` is of a file in UTF-8.
    """
    name = encoding.name
    claim = claim_of(encoding)
    if fault is None:
        return Invalid(
            reason="encoding",
            found=f"{claim}, but its bytes are not valid {name}, at line {line}.",
            remedy=WRITE_ENCODING,
            line=line,
            column=column,
        )
    what = f"byte 0x{fault.byte:02x} at line {fault.line}"
    fits = [other for other in (CHINESE, WESTERN) if decodes(fault.sample, other)]
    if survey is not None and survey.is_stray(fault.sample, fits):
        others = survey.bad_bytes - 1
        rest = f"{others} more of its bytes are not either" if others > 1 else "one more of its bytes is not either"
        rest = rest if others else "all others are"
        return Invalid(
            reason="encoding",
            found=f"{claim}, but {what} (byte offset {fault.offset}) is not valid {name}; {rest}.",
            remedy=WRITE_VALID_UTF_8,
            line=fault.line,
        )
    wider = wider_codec(encoding.codec)
    likely = (wider,) if wider and decodes(fault.sample, wider) else candidates(fault.sample)
    looks = f"; it looks like {alternatives(likely)}" if likely and likely != (name,) else ""
    return Invalid(
        reason="encoding",
        found=f"{claim}, but {what} is not valid {name}{looks}.",
        remedy=WRITE_ENCODING,
        line=fault.line,
    )


def claim_of(encoding: DeclaredEncoding) -> str:
    """Return what a file states about its encoding, as the start of a sentence."""
    if encoding.stated:
        return f"it declares {encoding.name}"
    return f"it declares no encoding, which means {encoding.name}"
