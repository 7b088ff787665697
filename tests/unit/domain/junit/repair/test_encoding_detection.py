"""The encoding of a report that is not in its declared one: never a wrong one, and often the right one."""

import codecs

import pytest

from bridge.domain.junit.encoding_guess import CHINESE, WESTERN
from bridge.domain.junit.repair.encoding_detection import EncodingSurvey

CHINESE_TEXTS = [
    "测试",
    "失败",
    "登录成功",
    "支付失败",
    "购物车",
    "断言失败：预期值与实际值不符",
    "期望 200 得到 500",
    "用户名或密码错误",
    "数据库连接超时",
    "空指针异常",
    "java.lang.AssertionError: 订单金额不正确 expected:<100> but was:<99>",
    "test_添加商品_到购物车",
    "测试用例[中文参数-1]",
    "请求超时，请稍后重试",
    "文件未找到: /tmp/配置.yaml",
    "第1步：打开首页",
    "第2步：点击【提交】按钮",
    "订单状态应为“已支付”",
    "库存不足，无法下单",
    "验证码已过期",
    "没有权限访问该资源",
    "参数 name 不能为空",
    "服务器内部错误",
    "索引越界异常 IndexError",
    "注册新用户",
    "删除后列表为空",
    "并发更新同一条记录时只有一个成功",
    "导出报表（Excel）",
    "查询结果排序错误",
    "返回码不是0",
    "缓存未命中时回源",
    "消息队列积压超过阈值",
    "接口返回的 JSON 缺少字段 data",
    "网络不可用",
    "浏览器启动失败",
    "元素不可见：//button[@id='ok']",
    "登录页_输入错误密码_提示错误",
    "华为云流水线构建任务执行失败",
    "这个测试在夏令时切换的那一天会失败，因为时间计算没有考虑时区",
    "单元测试覆盖率低于百分之八十，构建被终止，请补充测试后重新提交",
    "上传文件大小超过限制",
    "Expected: 你好，世界 Actual: 你好",
    "退款流程：先审核，再退回原支付账户，最后通知用户",
    "地址簿为空时显示提示",
    "多线程下单例只初始化一次",
    "字符串比较：大小写不敏感",
    "计算税费，四舍五入到分",
    "系统将在三十秒后自动重启",
]
WESTERN_TEXTS = [
    "café",
    "crème brûlée",
    "Größe ist ungültig",
    "naïve Übung",
    "été à la plage",
    "señor",
    "ação não permitida",
    "Das Passwort für den Benutzer ist ungültig",
    "Der Schlüssel wurde nicht gefunden",
    "Prüfung der Straße fehlgeschlagen",
    "Überprüfung läuft",
    "échec de la vérification",
    "Le fichier n'a pas été trouvé",
    "L'utilisateur n'est pas autorisé à accéder à cette ressource",
    "délai d'attente dépassé",
    "la commande a échoué après 3 essais",
    "El pedido no está disponible",
    "contraseña incorrecta",
    "¿Está seguro de que desea continuar?",
    "la sesión caducó",
    "El año próximo será mejor",
    "Falha na autenticação do usuário",
    "operação inválida",
    "O serviço não está disponível",
    "l'operazione è fallita",
    "perché il file non c'è più",
    "Città non trovata: verrà riprovato",
    "användaren är inte inloggad",
    "lösenordet är för kort",
    "Filen kunde ikke åbnes på serveren",
    "prøv igen senere, brugeren blev ikke fundet",
    "Käyttäjää ei löydy",
    "virheellinen syöte kentässä",
    "brukeren får ikke tilgang på nytt",
    "geïnstalleerde versie is onjuist; coördinaten ontbreken",
    "één van de geïnstalleerde tests is mislukt",
    "test_naïve_résumé",
    "Preis: 5 € statt 10 € für Bücher",
    "“Señal” no válida – inténtelo más tarde",
    "java.lang.AssertionError: expected:<Zürich> but was:<Zurich>",
    "São Paulo, Brasília e Maceió",
    "Müller, Jörg: Rückgabe geprüft",
    "température élevée: 30 °C mesurés à midi",
    "Déjà vu à Noël, près du théâtre",
    "mañana por la mañana",
    "L'événement a été créé avec succès, mais la réponse est arrivée très tard",
    "Größenänderung über das Menü schlägt fehl, wenn das Fenster geöffnet bleibt",
    "SESSÃO EXPIRADA: AUTENTICAÇÃO NÃO É VÁLIDA",
    "ÄNDERUNG DER GRÖSSE NICHT MÖGLICH",
]
UNDECIDABLE = [
    ("中", "gbk"),
    ("ÄÖ", WESTERN),
    ("Größe ist falsch", WESTERN),
    ("één van de tests is mislukt", WESTERN),
    ("ÅÄÖ ÅÄÖ ÅÄÖ", WESTERN),
    ("AÇÃO AÇÃO AÇÃO AÇÃO", WESTERN),
    ("привет, в тесте ошибка и это не всё", "windows-1251"),
    ("テストに失敗しました", "shift_jis"),
    ("테스트가 실패했습니다 사용자 로그인", "euc-kr"),
    ("장바구니", "euc-kr"),
    ("測試失敗：用戶登錄", "big5"),
    ("zażółć gęślą jaźń, błąd połączenia", "windows-1250"),
    ("kullanıcı bulunamadı, geçersiz şifre", "windows-1254"),
    ("δοκιμή απέτυχε", "windows-1253"),
]


def report(text: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="shop.CartTest" tests="1">\n'
        f'  <testcase name="{text}" classname="shop.CartTest" time="0.1">\n'
        f'    <failure message="{text}">at CartTest.java:12\n{text}</failure>\n  </testcase>\n</testsuite>\n'
    )


def chosen(data: bytes) -> str | None:
    survey = EncodingSurvey()
    survey.feed(data)
    return survey.choose()


@pytest.mark.parametrize("text", CHINESE_TEXTS)
@pytest.mark.parametrize("wrap", [report, '<testsuite name="{}"/>'.format], ids=["report", "once"])
def test_chinese_is_read_as_gb18030(text: str, wrap):
    assert chosen(wrap(text).encode("gbk")) == CHINESE


@pytest.mark.parametrize("text", WESTERN_TEXTS)
def test_western_text_is_read_as_windows_1252(text: str):
    assert chosen(report(text).encode(WESTERN)) == WESTERN


@pytest.mark.parametrize("text", WESTERN_TEXTS)
def test_a_single_western_text_is_never_read_as_chinese(text: str):
    assert chosen(f'<testsuite name="{text}"/>'.encode(WESTERN)) in (WESTERN, None)


@pytest.mark.parametrize(("text", "encoding"), UNDECIDABLE)
def test_what_may_be_either_or_neither_is_left_open(text: str, encoding: str):
    assert chosen(report(text).encode(encoding)) is None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_many_texts_together_are_never_read_wrongly(size: int):
    for texts, encoding, expected in ((CHINESE_TEXTS, "gbk", CHINESE), (WESTERN_TEXTS, WESTERN, WESTERN)):
        for at in range(len(texts) - size + 1):
            assert chosen(report(" ".join(texts[at : at + size])).encode(encoding)) == expected


@pytest.mark.parametrize("text", [*CHINESE_TEXTS, *WESTERN_TEXTS])
def test_utf_8_with_one_wrong_byte_is_left_open(text: str):
    assert chosen(report(text).encode().replace(b"tests=", b"\xfftests=")) is None


def test_utf_8_with_some_lines_of_another_encoding_is_left_open():
    lines = ["échec de la vérification".encode(), "Prüfung läuft".encode(), b"caf\xe9 cr\xe8me"]
    assert chosen(b"<testsuite>" + b"\n".join(lines) + b"</testsuite>") is None


@pytest.mark.parametrize(("text", "expected"), [("crème", WESTERN), ("Öffnen", None), ("ÉCRIRE", None), ("à", WESTERN)])
def test_one_letter_alone_counts_within_a_word_or_where_no_han_can_be(text: str, expected: str | None):
    assert chosen(f"<testsuite name='{text} '/>".encode(WESTERN)) == expected


@pytest.mark.parametrize(
    ("declared", "actual", "text"),
    [
        ("GBK", "gbk", "购物车測試"),
        ("gb2312", "gb2312", "购物车"),
        ("ISO-8859-2", "iso-8859-2", "žluť"),
        ("Big5", "big5", "購物車"),
        ("Shift_JIS", "shift_jis", "テスト"),
    ],
)
def test_the_declared_encoding_is_taken_where_it_fits(declared: str, actual: str, text: str):
    assert (
        chosen(f'<?xml version="1.0" encoding="{declared}"?><testsuite name="{text}"/>'.encode(actual))
        == codecs.lookup(actual).name
    )


@pytest.mark.parametrize(
    ("declared", "actual", "text"), [("gb2312", "gbk", "測試"), ("shift_jis", "cp932", "①"), ("euc-kr", "cp949", "똠")]
)
def test_the_wider_form_of_the_declared_encoding_is_tried_next(declared: str, actual: str, text: str):
    data = f'<?xml version="1.0" encoding="{declared}"?><testsuite name="{text}"/>'.encode(actual)
    assert chosen(data) == actual


def test_utf_8_is_seen_behind_another_declaration():
    assert chosen('<?xml version="1.0" encoding="us-ascii"?><testsuite name="测试é"/>'.encode()) == "utf-8"
    assert chosen('<?xml version="1.0" encoding="utf-16"?><testsuite name="测试é"/>'.encode()) == "utf-8"


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf_16_is_read_with_and_without_a_mark(order: str, mark: str):
    data = f'{mark}<?xml version="1.0" encoding="utf-16"?><testsuite name="测试"/>'.encode(order)
    assert chosen(data) == ("utf-16" if mark else order)


def test_a_byte_that_does_not_fit_far_behind_the_sample_still_counts():
    good = report("数据库连接超时").encode("gbk")
    survey = EncodingSurvey()
    for piece in (good * 1000, b"\x81\x20"):
        survey.feed(piece)
    assert survey.choose() is None


def test_the_rejection_names_the_byte_and_both_candidates():
    survey = EncodingSurvey()
    survey.feed(b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="\xc4\xd6"/>')
    refused = survey.rejection()
    assert (refused.reason, refused.line) == ("encoding", 2)
    assert refused.found == (
        "it declares utf-8, but byte 0xc4 at line 2 is not valid utf-8; it may be gbk, big5, euc-kr or windows-1252."
    )


@pytest.mark.parametrize(
    ("text", "encoding", "doubt"),
    [
        ("привет", "windows-1251", "it may be gb18030 or windows-1252."),
        ("登入成功", "big5", "it may be big5."),
    ],
)
def test_the_rejection_names_what_repair_would_choose_from_or_what_the_bytes_look_like(
    text: str, encoding: str, doubt: str
):
    survey = EncodingSurvey()
    survey.feed(report(text).encode(encoding))
    assert survey.rejection().found.endswith(doubt)
