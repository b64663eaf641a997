"""The docs say what the code says: tables are up to date, and links lead somewhere."""

import re

import pytest

from deployments.metrics.declared import LIMITS
from deployments.models.families import FAMILIES
from deployments.settings import Settings
from docs.tables import DOCS, TABLES, with_tables
from tests.servers import ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", TABLES)
def test_a_generated_table_is_up_to_date(page: str) -> None:
    text = (DOCS / page).read_text()
    assert with_tables(page, text) == text, "run `make docs`"


def test_every_family_is_in_the_models_page() -> None:
    text = (DOCS / "models.md").read_text()
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []


def test_every_setting_is_in_the_configuration_page_with_a_sentence() -> None:
    text = (DOCS / "configuration.md").read_text()
    for name, field in Settings.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        for setting in [f"{name}.{key}" for key in keys] if keys else [name]:
            assert re.search(rf"^\| `{re.escape(setting)}` \| [^|]+ \| [A-Z`].+\. \|$", text, re.M)


def test_each_limit_that_an_alert_can_name_has_a_row_that_says_when_it_refuses() -> None:
    section = (DOCS / "operations.md").read_text().partition("\n## Under load\n")[2]
    first_cells = "".join(re.findall(r"^\| ([^|]+) \|", section.partition("\n## ")[0], re.M))
    assert [limit for limit in LIMITS if not re.search(rf"[`.]{limit}`", first_cells)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: "object") -> None:
    path = ROOT / str(page)
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
