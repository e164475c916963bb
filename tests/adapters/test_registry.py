import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.adapters.registry import Registry, built_in
from llmctl.adapters.spec import BUILT_IN, USER_RANK
from llmctl.core.errors import BadFileError, NotFoundError, UsageError

ROW = '[[family]]\nid = "{id}"\ntemplate = "vicuna_v1.1"\n[family.match]\nnames = ["{name}"]\n'
CLASS = """
from llmctl.adapters import BaseModelAdapter, register_model_adapter

class OurModelAdapter(BaseModelAdapter):
    def match(self, model_path):
        return "our" in model_path.lower()

register_model_adapter(OurModelAdapter)
"""


def rows(path: Path, family_id: str, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ROW.format(id=family_id, name=name))
    return path


def test_the_built_in_families_are_read_once() -> None:
    assert built_in() is built_in()
    assert {family.origin for family in built_in()} == {BUILT_IN}


def test_the_users_rows_are_read_from_their_folder(tmp_path: Path) -> None:
    path = rows(tmp_path / "mine.toml", "ours", "our-model")
    (tmp_path / "notes.txt").write_text("not read")
    registry = Registry.load(tmp_path)
    family = registry.by_id("ours")
    assert (family.origin, family.origin_rank) == (str(path), USER_RANK)
    assert registry.resolve("x/our-model-7b").family is family
    assert len(registry.families) == len(Registry.load(None).families) + 1


def test_a_missing_folder_holds_no_rows(tmp_path: Path) -> None:
    assert len(Registry.load(tmp_path / "none").families) == len(Registry.load(None).families)


def test_a_row_of_the_user_takes_the_place_of_ours(tmp_path: Path) -> None:
    ours = built_in()[0]
    rows(tmp_path / "mine.toml", ours.id, "something-else")
    registry = Registry.load(tmp_path)
    assert registry.by_id(ours.id).origin_rank == USER_RANK
    assert ours not in registry.families


def test_a_named_file_goes_before_the_folder(tmp_path: Path) -> None:
    rows(tmp_path / "folder" / "mine.toml", "ours", "a")
    named = rows(tmp_path / "named.toml", "ours", "b")
    assert Registry.load(tmp_path / "folder", [named]).by_id("ours").origin == str(named)


def test_two_files_of_the_folder_must_not_have_the_same_id(tmp_path: Path) -> None:
    first, second = rows(tmp_path / "a.toml", "ours", "a"), rows(tmp_path / "b.toml", "ours", "b")
    with pytest.raises(BadFileError) as caught:
        Registry.load(tmp_path)
    assert caught.value.message == f"{second} and {first} both have a family 'ours'"


def test_an_unknown_template_of_the_users_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ROW.format(id="ours", name="ours").replace("vicuna_v1.1", "vicuna_v1"))
    with pytest.raises(BadFileError, match="no template is called 'vicuna_v1'"):
        Registry.load(None, [path])


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(BadFileError, match="is not UTF-8"):
        Registry.load(tmp_path)


@pytest.mark.parametrize(("name", "error"), [("x.toml", NotFoundError), ("x.yaml", UsageError)])
def test_a_file_that_cannot_be_rows_is_told(tmp_path: Path, name: str, error: type[Exception]) -> None:
    if error is UsageError:
        (tmp_path / name).touch()
    with pytest.raises(error, match=name):
        Registry.load(None, [tmp_path / name])


def test_a_python_file_brings_its_classes_to_this_registry_alone(tmp_path: Path) -> None:
    path = tmp_path / "ours.py"
    path.write_text(CLASS)
    found = Registry.load(None, [path]).resolve("x/Our-Model")
    assert found.family is not None
    assert (found.family.id, found.family.origin) == ("class.our-model", str(path))
    assert found.matched_by == ("OurModelAdapter.match says so",)
    assert found.family.template == "tokenizer"
    assert Registry.load(None).resolve("x/our-model").family is None


def test_a_python_file_in_the_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("raise SystemExit(1)")
    assert len(Registry.load(tmp_path).families) == len(Registry.load(None).families)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("x = 1", UsageError, "registers no adapter"),
        ("1 / 0", BadFileError, "fails: ZeroDivisionError: division by zero"),
        ("def", BadFileError, "fails: SyntaxError"),
        ("import fastchat", BadFileError, "fails: ModuleNotFoundError"),
        (CLASS.replace('"our" in', "1 / 0 in"), BadFileError, "OurModelAdapter.match"),
        (
            CLASS.replace("def match", "def __init__(self): 1 / 0\n    def match"),
            BadFileError,
            "OurModelAdapter",
        ),
        ("import llmctl.adapters as a\na.register_model_adapter(int)", UsageError, "is not an adapter class"),
        ("import llmctl.adapters as a\na.register_model_adapter(3)", UsageError, "3 is not an adapter class"),
    ],
)
def test_a_broken_python_file_is_named(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "ours.py"
    path.write_text(text)
    with pytest.raises(error, match=message):
        Registry.load(None, [path]).resolve("our-model")


def test_an_unknown_id_is_told_what_is_near() -> None:
    with pytest.raises(NotFoundError, match="no family is called 'vicunna'") as caught:
        Registry.load(None).by_id("vicunna")
    assert "vicuna" in str(caught.value.hint)


SCRIPT = """
import sys
from llmctl.adapters.registry import Registry
Registry.load(None).resolve("lmsys/vicuna-7b-v1.5")
print(*sorted({"asyncio", "httpx2", "jinja2", "torch", "importlib.metadata", "typer"} & set(sys.modules)))
"""


def test_matching_by_name_imports_nothing_that_takes_time() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("\n", "")
