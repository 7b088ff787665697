"""Generated reports with faults that CI meets: encodings, color codes, truncated and glued files, other formats."""
# ruff: noqa: INP001 -- docs/ is no package

from collections.abc import Mapping
from typing import Final

_CHINESE, _WESTERN = "登录失败，请重试", "échec de la crème brûlée"
_BODY = (
    '<testsuite name="shop" tests="2" failures="1" time="1.5">\n<testcase name="pays" time="1"/>\n'
    '<testcase name="signs in" time="0.5"><failure message="{0}">{0}</failure></testcase>\n</testsuite>\n'
)
_PLAIN = _BODY.format("expected 1")


def _report(declared: str, text: str, actual: str = "") -> bytes:
    """Return a report that declares one encoding and is written in the same, or in another."""
    return f'<?xml version="1.0" encoding="{declared}"?>\n{_BODY.format(text)}'.encode(actual or declared)


def _without_declaration(text: str, actual: str) -> bytes:
    return _BODY.format(text).encode(actual)


MADE: Final[Mapping[str, bytes]] = {
    "declared in GBK": _report("GBK", _CHINESE),
    "declared in GB2312": _report("GB2312", _CHINESE),
    "declared in GB18030": _report("GB18030", _CHINESE + "𠀀"),
    "declared in Big5": _report("Big5", "登錄失敗"),
    "declared in Shift_JIS": _report("Shift_JIS", "テスト失敗"),
    "declared in EUC-KR": _report("EUC-KR", "로그인 실패"),
    "declared in ISO-8859-1": _report("ISO-8859-1", _WESTERN),
    "declared in windows-1252": _report("windows-1252", f"“{_WESTERN}”"),
    "declared in windows-1251": _report("windows-1251", "ошибка входа"),
    "UTF-16 with a mark": _report("UTF-16", _CHINESE),
    "UTF-16 without a mark": _report("UTF-16", _CHINESE, "utf-16-le"),
    "UTF-8 with a mark": _report("UTF-8", _CHINESE, "utf-8-sig"),
    "a blank line before the declaration": b"\n" + _report("UTF-8", _CHINESE),
    "GBK under a UTF-8 header": _report("UTF-8", _CHINESE, "gbk"),
    "GBK without a header": _without_declaration(_CHINESE, "gbk"),
    "windows-1252 under a UTF-8 header": _report("UTF-8", _WESTERN, "windows-1252"),
    "UTF-8 under a UTF-16 header": _report("UTF-16", _WESTERN, "utf-8"),
    "two letters that may be either": _report("UTF-8", "ÄÖ", "windows-1252"),
    "color codes": _report("UTF-8", "\x1b[31mred\x1b[0m"),
    "a reference to a control character": _report("UTF-8", "&#27;[31mred&#27;[0m"),
    "a NUL in the output": _report("UTF-8", "a\0b"),
    "cut after its first case": _PLAIN[: _PLAIN.rindex("<testcase")].encode(),
    "cut within a case": _PLAIN[: _PLAIN.index("expected")].encode(),
    "cut within its last tag": _PLAIN[:-4].encode(),
    "two reports glued together": (_PLAIN + _PLAIN).encode(),
    "a log line behind the report": (_PLAIN + "Done in 3 s\n").encode(),
    "a raw & in a message": _report("UTF-8", "fish & chips"),
    "a namespaced root": _PLAIN.replace("<testsuite ", '<testsuite xmlns="urn:junit" ').encode(),
    "a bare DOCTYPE": f"<!DOCTYPE testsuite>{_PLAIN}".encode(),
    "a DOCTYPE with an entity": f'<!DOCTYPE testsuite [<!ENTITY a "b">]>{_PLAIN}'.encode(),
    "wrong totals": _PLAIN.replace('tests="2"', 'tests="7"').encode(),
    "no cases": b'<testsuites tests="0"/>',
    "an empty file": b"",
    "JSON": b'{"tests": 2}',
    "a PDF": b"%PDF-1.7\n",
    "a web page": b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    "NUnit 3": b'<?xml version="1.0"?><test-run id="2" testcasecount="2"/>',
    "xUnit.net": b"<assemblies><assembly/></assemblies>",
    "Visual Studio TRX": b'<TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"/>',
    "JaCoCo": b'<!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report name="a"/>',
    "Cobertura": b'<coverage line-rate="0.5"/>',
    "Maven Failsafe": b"<failsafe-summary/>",
    "TestNG": b"<testng-results/>",
}
"""Content of each file, by the name that docs/verdicts.md shows."""
