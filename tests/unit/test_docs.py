"""The pages say what the code is: links lead somewhere, and what they name exists."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

import bridge
from bridge import errors
from bridge.domain.why import WhyCase
from bridge.server.admin.console.routes import ROUTES
from bridge.server.http.requests import METADATA_NAMES
from bridge.settings.model import Settings, names_of, table_of
from bridge.telemetry.metrics import Metrics
from docs import make_screenshots, render_reference, render_upload
from docs.render_codes import ANSWERS, PAGE, page

CODE = Path(bridge.__file__).parent
REPOSITORY = CODE.parent
TESTS = REPOSITORY / "tests"
ROOT_PAGES = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md")
PAGES = [REPOSITORY / name for name in ROOT_PAGES]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
OPERATE = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")

PAGE_IDS = [str(path.relative_to(REPOSITORY)) for path in PAGES]
SERIES_ENDS = re.compile(r"_(total|bucket|count|sum)$")
LINK = r"\]\(([^)\s]+)\)"
PATH = r"`((?:bridge/|docs/|tests/)?[a-z_0-9/]+(?:\.py|/))`"
TEST_NAME = r"`(?:tests/[\w/]+\.py::)?(test_\w+)`"
SETTING = r"`(\w+)\.(\w+)(?: = [^`]*)?`"


def text_of(path):
    return path.read_text(encoding="utf-8")


def anchors(path):
    """Return what each heading is called in a link, as GitHub makes it."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metric_names():
    """Return the names of all metrics from their help lines, without the ends of series and `_created`."""
    named = re.findall(r"(?m)^# HELP (\S+)", Metrics().render().decode())
    return {SERIES_ENDS.sub("", name) for name in named if not name.endswith("_created")}


def test_the_page_of_codes_is_what_the_errors_say():
    assert text_of(PAGE) == page(), "docs/codes.md is stale. Run `make docs`."


@pytest.mark.parametrize("name", render_reference.PAGES)
def test_the_reference_is_what_the_code_says(name):
    made = render_reference.PAGES[name]()
    assert text_of(render_reference.FOLDER / name) == made, f"docs/reference/{name} is stale. Run `make docs`."


def test_the_reference_of_settings_lists_every_setting():
    listed = render_reference.settings_page()
    tables = [Settings]
    while tables:
        for name, field in tables.pop().model_fields.items():
            if table_of(field) is None:
                assert f"| `{name}` |" in listed, name
            else:
                tables.append(table_of(field))


def test_the_page_about_uploads_has_the_digest_of_the_script_and_the_usual_places():
    page_about_uploads = REPOSITORY / "docs" / "upload.md"
    assert text_of(page_about_uploads) == render_upload.page(text_of(page_about_uploads)), "Run `make docs`."
    digest = sha256((CODE / "server" / "upload.sh").read_bytes()).hexdigest()
    assert f'echo "{digest}  upload.sh" | sha256sum -c -' in text_of(page_about_uploads)


def test_every_error_that_an_upload_can_be_answered_with_has_its_row():
    assert {answer.error for answer in ANSWERS} == {
        *errors.CallerError.__subclasses__(),
        errors.Unavailable,
        errors.BadGateway,
        errors.GatewayTimeout,
        errors.BridgeError,
    }


def test_the_readme_names_every_parameter_of_an_upload():
    readme = text_of(REPOSITORY / "README.md")
    assert [name for name in METADATA_NAMES if not re.search(rf"(?m)^\| .*`{name}\b", readme)] == []


@pytest.mark.parametrize("pattern", [LINK, PATH, TEST_NAME, SETTING])
def test_what_is_looked_for_on_the_pages_is_there(pattern):
    assert any(re.search(pattern, text_of(path)) for path in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_link_leads_to_a_page_and_a_heading_of_it(path):
    for target in re.findall(LINK, text_of(path)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_module_and_folder_that_a_page_names_exists(path):
    for name in re.findall(PATH, text_of(path)):
        assert any((root / name).exists() for root in (REPOSITORY, CODE, path.parent)), name


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_test_that_a_page_names_exists(path):
    known = {name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", text_of(file))}
    assert set(re.findall(TEST_NAME, text_of(path))) <= known


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_setting_that_a_page_names_exists(path):
    if path.name == "api.md":
        pytest.skip("It names fields of the API.")
    tables = {name: table_of(field) for name, field in Settings.model_fields.items()}
    for table, setting in re.findall(SETTING, text_of(path)):
        if tables.get(table) is not None and setting not in {"py", "toml"}:
            assert setting in names_of(tables[table]), f"{table}.{setting}"


def test_each_metric_has_its_row_and_no_other():
    rows = re.findall(r"(?m)^\| `(bridge_\w+)", OPERATE)
    assert sorted(SERIES_ENDS.sub("", name) for name in rows) == sorted(metric_names())


def test_the_row_of_each_metric_has_its_labels():
    rows = re.findall(r"(?m)^\| `(bridge_\w+)(?:\{([\w,]+)\})?`", OPERATE)
    listed = {SERIES_ENDS.sub("", name): tuple(labels.split(",")) if labels else () for name, labels in rows}
    metrics = Metrics()._registry._collector_to_names  # the library offers no labels otherwise
    assert listed == {SERIES_ENDS.sub("", metric._name): metric._labelnames for metric in metrics}


def test_each_log_event_is_explained_and_no_other():
    code = "\n".join(text_of(path) for path in CODE.rglob("*.py"))
    logged = set(re.findall(r'\b_?log\.(?:debug|info|warning|error|exception)\(\s*"(\w+)"', code))
    logged |= set(re.findall(r'\blog_refusal\(\s*_?log\.\w+,\s*"(\w+)"', code))
    rows = re.findall(r"(?m)^\| (`[^|]+) \|", OPERATE.partition("\n## Logs\n")[2].partition("\n## ")[0])
    explained = re.findall(r"`(\w+)`", " ".join(rows))
    assert logged <= set(explained)
    assert [event for event in explained if f'"{event}"' not in code] == []
    assert len(explained) == len(set(explained))


def test_each_case_of_why_has_its_remedy():
    section = OPERATE.partition("## When a build is not in TestNod")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", section)) == set(WhyCase)


# -- pictures ----------------------------------------------------------------------------------------------------------

PICTURES = {make_screenshots.picture(page, theme) for page in make_screenshots.PAGES for theme in ("light", "dark")}


def test_the_pictures_are_those_that_their_script_makes():
    assert {path.name for path in make_screenshots.IMAGES.iterdir()} == PICTURES, "Run `make screenshots`."


def test_each_page_of_the_console_has_its_pictures():
    pages = {path for method, path, _ in ROUTES if method == "GET" and not path.startswith("/static/")}
    pictured = [address.partition("?")[0] for address in make_screenshots.PAGES.values()]
    for path in pages:
        pattern = re.sub(r"{\w+}", "[^/]+", path)
        assert [address for address in pictured if re.fullmatch(pattern, address)], f"{path} has no picture."
    assert len(pictured) == len(pages)


def test_each_picture_is_shown_or_linked_on_a_page():
    linked = {name for path in PAGES for name in re.findall(r"\bimages/([\w-]+\.png)\)", text_of(path))}
    assert linked == PICTURES
