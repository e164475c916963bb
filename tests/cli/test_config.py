"""`llmctl config show`: every setting, its value and where that is from."""

import json
from pathlib import Path

import pytest

from llmctl.core import settings
from tests.conftest import Llmctl


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a settings file, in which the command runs; the environment says something too."""
    (tmp_path / "llmctl.toml").write_text('temperature = 0.5\nstop = ["a", "b"]\nsystem = "Be brief."')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCTL_DEVICE", "cpu")
    monkeypatch.setenv("LLMCTL_TEMPERATURE", "0.7")
    return tmp_path


def table(text: str) -> list[list[str]]:
    """The cells of aligned columns."""
    lines = text.splitlines()
    starts = [lines[0].index(word) for word in lines[0].split()]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    return [[line[left:right].strip() for left, right in bounds] for line in lines]


def test_every_setting_is_shown_even_when_nothing_is_set(llmctl: Llmctl) -> None:
    ended = llmctl("config", "show")
    assert (ended.code, ended.err) == (0, "")
    rows = table(ended.out)
    assert rows[0] == ["KEY", "VALUE"]
    assert [row[0] for row in rows[1:]] == list(settings.KEYS)
    assert dict(rows[1:]) == dict.fromkeys(settings.KEYS, "-") | {
        "model": "demo",
        "device": "auto",
        "dtype": "auto",
        "color": "auto",
        "timeout": "60.0",
        "reasoning": "show",
        "thinking": "auto",
        "overflow": "ask",
        "log": "on",
        "history": "on",
        "hub": "huggingface",
    }


def test_values_are_those_in_force(llmctl: Llmctl, project: Path) -> None:
    rows = dict(table(llmctl("config", "show").out))
    assert rows["temperature"] == "0.7"
    assert rows["device"] == "cpu"
    assert rows["stop"] == "('a', 'b')"
    assert rows["system"] == "Be brief."


def test_origin_names_file_and_variable(llmctl: Llmctl, project: Path) -> None:
    rows = table(llmctl("config", "show", "--origin").out)
    assert rows[0] == ["KEY", "VALUE", "ORIGIN"]
    origins = {row[0]: row[2] for row in rows[1:]}
    file = str(project / "llmctl.toml")
    assert origins == dict.fromkeys(settings.KEYS, "default") | {
        "temperature": "LLMCTL_TEMPERATURE",
        "device": "LLMCTL_DEVICE",
        "stop": file,
        "system": file,
    }


def test_json_holds_the_values_in_their_types(llmctl: Llmctl, project: Path) -> None:
    ended = llmctl("config", "show", "--json")
    assert (ended.code, ended.err) == (0, "")
    shown = json.loads(ended.out)
    assert list(shown) == list(settings.KEYS)
    assert (shown["temperature"], shown["device"], shown["stop"]) == (0.7, "cpu", ["a", "b"])
    assert shown["top_k"] is None


def test_json_with_origin_holds_both(llmctl: Llmctl, project: Path) -> None:
    shown = json.loads(llmctl("config", "show", "--json", "--origin").out)
    assert shown["temperature"] == {"value": 0.7, "origin": "LLMCTL_TEMPERATURE"}
    assert shown["stop"] == {"value": ["a", "b"], "origin": str(project / "llmctl.toml")}
    assert shown["seed"] == {"value": None, "origin": "default"}


def test_a_text_of_several_lines_stays_in_its_row(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_SYSTEM", "one\ntwo\x1b[31m")
    lines = llmctl("config", "show").out.splitlines()
    assert len(lines) == 1 + len(settings.KEYS)
    assert r"'one\ntwo\x1b[31m'" in next(line for line in lines if line.startswith("system"))


def test_a_bad_file_ends_with_its_path_and_the_codes_of_usage_and_bad_file(
    llmctl: Llmctl, project: Path
) -> None:
    file = project / "llmctl.toml"
    file.write_text("devise = 1")
    ended = llmctl("config", "show")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: {file}: unknown key 'devise' (did you mean 'device'?)\n"
    file.write_text("device")
    ended = llmctl("config", "show")
    assert (ended.code, ended.out) == (7, "")
    assert ended.err.startswith(f"error: {file} is not valid TOML: ")


def test_the_user_file_is_found_in_the_config_folder(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_CONFIG_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('model = "my/model"')
    shown = json.loads(llmctl("config", "show", "--json", "--origin").out)
    assert shown["model"] == {"value": "my/model", "origin": str(tmp_path / "config.toml")}


def test_output_in_an_old_encoding_is_escaped_instead_of_failing(llmctl_process: Llmctl) -> None:
    utf8 = {"PYTHONUTF8": "1", "LLMCTL_SYSTEM": "grüß"}
    assert "grüß" in llmctl_process("config", "show", env=utf8).out
    for environ in (
        utf8 | {"PYTHONIOENCODING": "ascii"},
        utf8 | {"PYTHONIOENCODING": "ascii:surrogateescape"},
    ):
        ended = llmctl_process("config", "show", env=environ)
        assert (ended.code, ended.err) == (0, "")
        assert r"gr\xfc\xdf" in ended.out
