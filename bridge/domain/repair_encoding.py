"""In which encoding a report is that is not in the one it declares: gb18030, windows-1252, or left open.

It knows bytes and what common text looks like; it reads no XML but the declaration, and changes nothing.
"""

import codecs
from collections.abc import Collection
from typing import Final

from bridge.domain.junit_encoding import (
    ASCII_TO_BLANK,
    MARGIN,
    WIDER,
    WRITE_ENCODING,
    ByteWatch,
    Declared,
    declared,
    narrow_utf16,
    trim,
)
from bridge.domain.junit_verdict import Refused

CHINESE, WESTERN = "gb18030", "windows-1252"
UTF_8: Final = "utf-8"
SAMPLE_SIZE: Final = 64 << 10  # bytes of lines that are not ASCII: tens of thousands of characters settle it
MAX_LINE_SIZE: Final = 4 << 10  # bytes of one line: so that one long line is not all that is looked at
MIN_HAN: Final = 2  # different common Han: one pair of bytes, however often, may be two accented letters
MIN_LETTERS: Final = 2  # lone accented letters where the bytes would do as gb18030, too; one within a word is enough

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
    # And what tests and their messages say beside it: expected, actual, timeout, exception, log in, basket, order …
    "测试败错误异预期超响络登录注册密码户订购付款退库删异步添编辑列页按钮索排序选择验例块函参索引输入栏状态返缺少警版默键值"
    "空符串址域端浏览器载缓队锁线池栈溢堆终止启停校跳转拒绝限角浮精度配置环境依赖脚初始销毁模拟场景断言覆盖率捕获抛创"
)

# Lone in a Western word. What is not here and stands alone, such as ł, ą or ğ of other code pages, speaks against it.
LETTERS: Final = frozenset(
    bytes((byte,)) for byte in "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüœŒ".encode(WESTERN)
)
ASCII: Final = bytes(range(0x80))
FIRST_SMALL: Final = 0xDF  # ß; what follows but ÷ are small letters
STRANGERS: Final = frozenset(bytes((byte,)) for byte in b"\xb3\xb9\xf0\xfd\xfe")


class Survey:
    """Follows a file through every codec that it may be in, and gathers the lines that tell them apart.

    Takes pieces of which the first holds the XML declaration.
    """

    def __init__(self) -> None:
        self.mendable = False  # it begins as XML, in an encoding that is known here
        self.declared = Declared(UTF_8, stated=False)
        self.stated: list[str] = []  # codecs that the file itself names
        self._watches: dict[str, ByteWatch] | None = None
        self._sample = bytearray()

    def feed(self, piece: bytes) -> None:
        if self._watches is None:
            self._watches = self._open(piece)
        for watch in self._watches.values():
            watch.feed(piece)
        if len(self._sample) < SAMPLE_SIZE and not piece.isascii():
            for line in piece.split(b"\n"):
                if not line.isascii():
                    self._sample += line[:MAX_LINE_SIZE] + b"\n"
                if len(self._sample) >= SAMPLE_SIZE:
                    return

    def choose(self) -> str | None:
        """Name the codec to read the whole file with: the declared one where it fits; None where nothing can tell."""
        fits = [name for name, watch in (self._watches or {}).items() if watch.fault is None]
        for name in (*self.stated, UTF_8):
            if name in fits:
                return name
        return weigh(bytes(self._sample), fits)

    def refusal(self) -> Refused:
        """Say that nothing can tell, and name what it may be."""
        faults = [watch.fault for watch in (self._watches or {}).values() if watch.fault is not None]
        said = f"declared {self.declared.name}" if self.declared.stated else f"it declares no encoding but {UTF_8}"
        where = f"byte 0x{faults[0].byte:02x} at line {faults[0].line} is not" if faults else "its bytes are not"
        return Refused(
            reason="encoding",
            found=f"{said}, but {where}; whether it is {CHINESE} or {WESTERN} cannot be told.",
            remedy=WRITE_ENCODING,
            line=faults[0].line if faults else None,
        )

    def _open(self, piece: bytes) -> dict[str, ByteWatch]:
        head, _ = trim(piece)
        self.declared = declared(head)
        self.mendable = b"<" in head[:4] and _known(self.declared.name)
        if narrow_utf16(head) and not head.startswith(codecs.BOM_UTF8):
            self.declared = Declared("utf-16", stated=True)
        else:
            self.stated = _codecs_of(self.declared, head)
        return {name: ByteWatch(name) for name in (*self.stated, UTF_8, CHINESE, WESTERN)}


def is_utf_8(encoding: str) -> bool:
    """Tell whether a text in this encoding can be read as UTF-8."""
    return _known(encoding) and codecs.lookup(encoding).name in (UTF_8, "ascii")


def weigh(sample: bytes, fits: Collection[str]) -> str | None:
    """Choose between the candidates by what each would make of a sample; None where the evidence does not suffice.

    `fits`: the codecs that can read the whole file. Common Han speak for gb18030, which as windows-1252 are runs of
    signs and capitals; accented letters alone among ASCII speak for windows-1252, which as gb18030 are rare Han or
    nothing. Where the most is sound UTF-8, only some bytes are wrong, and neither would be right.
    """
    if _looks_like_utf_8(sample):
        return None
    characters = [character for character in sample.decode(CHINESE, errors="ignore") if _is_telling(character)]
    han = [character for character in characters if character in COMMON_HAN]
    runs = sample.translate(ASCII_TO_BLANK).split()
    letters = sum(run in LETTERS for run in runs)
    against = sum(len(run) for run in runs if len(run) > 2 or run in STRANGERS)
    if (
        CHINESE in fits
        and len(set(han)) >= MIN_HAN
        and 2 * len(han) >= len(characters)
        and 2 * len(han) > MARGIN * letters
    ):
        return CHINESE
    enough = letters >= MIN_LETTERS or CHINESE not in fits or _stands_in_a_word(sample)
    return WESTERN if WESTERN in fits and enough and letters > MARGIN * max(2 * len(han), against) else None


def _stands_in_a_word(sample: bytes) -> bool:
    """Tell whether an accented letter has small letters on both sides, which as gb18030 is a rare Han in a word."""
    return any(
        sample[at - 1 : at].islower() and sample[at + 1 : at + 2].islower()
        for at, byte in enumerate(sample)
        if byte >= FIRST_SMALL and bytes((byte,)) in LETTERS
    )


def _looks_like_utf_8(sample: bytes) -> bool:
    """Tell whether most bytes above ASCII are sound UTF-8 of a kind that Chinese in gb18030 does not happen to be."""
    sound = [character for character in sample.decode(UTF_8, errors="ignore") if _is_usual_in_utf_8(character)]
    above = len(sample.translate(None, ASCII))
    return 2 * len("".join(sound).encode()) > above


def _is_usual_in_utf_8(character: str) -> bool:
    return "\x80" <= character <= "\xff" or character >= "\u0800"


def _is_telling(character: str) -> bool:
    return character > "\x7f" and not (
        "\u2000" <= character < "\u2e00" or "\u3000" <= character < "\u3040" or "\uff00" <= character < "\U00010000"
    )


def _codecs_of(said: Declared, head: bytes) -> list[str]:
    names = [name for name in (said.name, WIDER.get(said.name, "")) if _known(name)]
    if (
        names
        and codecs.lookup(names[0]).name == "utf-16"
        and not head.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE))
    ):
        return ["utf-16-be" if head[:1] == b"\0" else "utf-16-le"]
    return names


def _known(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True
