"""Plugins as they are installed: a folder on `sys.path` with a package and its dist-info."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.adapters.plugins import plugin_families
from llmctl.adapters.registry import Registry
from llmctl.adapters.spec import PLUGIN_RANK

ROW = "[[family]]\\nid = 'ours'\\ntemplate = 'vicuna_v1.1'\\nmatch = {names = ['our-model']}"
CLASSES = """
from llmctl.adapters import BaseModelAdapter

class OurAdapter(BaseModelAdapter):
    def match(self, model_path):
        return model_path == "our-model"

offered = [OurAdapter]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with one module and one entry point."""

    def run(package: str, text: str, *, group: str = "llmctl.adapters", value: str | None = None) -> None:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        module = f"{package.replace('-', '_')}_module"
        (folder / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nrows = {value or f'{module}:offered'}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(str(folder))

    return run


def test_a_plugin_may_offer_a_toml_text(install: Install) -> None:
    install("plugin-text", f'offered = "{ROW}"')
    (family,) = plugin_families()
    assert (family.id, family.origin, family.origin_rank) == ("ours", "plugin plugin-text", PLUGIN_RANK)
    found = Registry.load(None).resolve("x/our-model")
    assert found.family is family
    assert "ours" not in [family.id for family in Registry.load(None, plugins=False).families]


@pytest.mark.parametrize("kind", ["str", "pathlib.Path"])
def test_a_plugin_may_offer_a_path(install: Install, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.toml"
    path.write_text(ROW.encode().decode("unicode_escape"))
    install("plugin-path", f"import pathlib\noffered = {kind}({str(path)!r})")
    assert [family.id for family in plugin_families()] == ["ours"]


def test_a_plugin_may_offer_classes(install: Install) -> None:
    install("plugin-class", CLASSES)
    found = Registry.load(None).resolve("our-model")
    assert found.family is not None
    assert (found.family.id, found.family.origin_rank) == ("class.our", PLUGIN_RANK)


@pytest.mark.parametrize(
    ("text", "value", "told"),
    [
        ("1 / 0", None, "its entry point rows = broken_module:offered fails: ZeroDivisionError"),
        ("offered = 3", None, "it offers int, not a path"),
        ("offered = 'nonsense'", None, "its TOML is not valid TOML"),
        ("offered = '/no/such.toml'", None, "reading /no/such.toml fails: FileNotFoundError"),
        (f'offered = "{ROW}"'.replace("vicuna_v1.1", "nothing"), None, "no template is called 'nothing'"),
        ("offered = [int]", None, "is not an adapter class"),
        ("", "no.such.module:x", "ModuleNotFoundError"),
        ("", None, "AttributeError"),
    ],
)
def test_a_broken_plugin_is_told_by_its_name_once_and_left_out(
    install: Install, caplog: pytest.LogCaptureFixture, text: str, value: str | None, told: str
) -> None:
    install("broken", text, value=value)
    install("whole", f'offered = "{ROW}"')
    with caplog.at_level(logging.WARNING, logger="llmctl"):
        assert [family.id for family in plugin_families()] == ["ours"]
        assert [family.id for family in plugin_families()] == ["ours"]
    (record,) = caplog.records
    assert record.getMessage().startswith("the plugin broken is left out: ")
    assert told in record.getMessage()


def test_of_two_plugins_with_the_same_id_the_first_by_name_stays(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("plugin-b", f'offered = "{ROW}"')
    install("plugin-a", f'offered = "{ROW}"')
    with caplog.at_level(logging.WARNING, logger="llmctl"):
        assert [family.origin for family in plugin_families()] == ["plugin plugin-a"]
    assert [record.getMessage() for record in caplog.records] == [
        "plugin plugin-b: family 'ours' is left out, plugin plugin-a has one"
    ]


def test_other_groups_are_none_of_ours(install: Install) -> None:
    install("other", "1 / 0", group="llmctl.other")
    assert plugin_families() == ()


def test_looking_for_plugins_costs_next_to_nothing(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Another sys.path, so that it is looked at anew.
    monkeypatch.syspath_prepend(str(tmp_path / "none"))
    start = time.process_time()
    assert plugin_families() == ()
    assert time.process_time() - start < 0.05
