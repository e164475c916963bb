"""`llmctl models match`: fields, exit codes, stdin, folders, templates, speed."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.models.conftest import Models
from tests.cli.test_help import cpu_seconds, modules_after
from tests.conftest import Llmctl

FIELDS = {
    *("name", "family", "kind", "template", "template_source", "matched_by", "stop", "stop_token_ids"),
    *("roles", "loading", "candidates", "near"),
}
COST_CAP = 3.0
NUM_TIMES = 3


def found(models: Models, *args: str, code: int = 0, stdin: bytes = b"") -> list[dict[str, Any]]:
    """The objects of `models match --json`."""
    ended = models("match", "--json", *args, stdin=stdin)
    assert (ended.code, ended.err) == (code, "")
    return [json.loads(line) for line in ended.out.splitlines()]


def test_a_name_gives_family_template_stops_and_reasons(models: Models) -> None:
    (answer,) = found(models, "Island/Quokka_7B-v1/")
    assert answer.keys() >= FIELDS
    assert "prompt" not in answer
    assert (answer["name"], answer["family"], answer["kind"]) == ("Island/Quokka_7B-v1/", "quokka", "decoder")
    assert (answer["template"], answer["template_source"]) == ("vicuna_v1.1", "row")
    assert answer["roles"] == ["USER", "ASSISTANT"]
    assert (answer["stop"][-1], answer["stop_token_ids"]) == ("###", [7])
    assert answer["loading"] == {"use_fast": False}
    assert answer["matched_by"] == ['name contains "quokka"']
    assert answer["candidates"][0] == {"family": "quokka", "why": 'name contains "quokka"'}
    assert (answer["folder"], answer["error"]) == (None, None)


def test_a_longer_literal_wins_and_the_other_is_a_runner_up(models: Models) -> None:
    (answer,) = found(models, "quokka-2-7b")
    assert (answer["family"], [each["family"] for each in answer["candidates"]]) == (
        "quokka-2",
        ["quokka-2", "quokka"],
    )
    assert answer["notes"][0] == "Needs a hug."


def test_a_template_in_the_tokenizer_is_told_with_the_remedy(models: Models) -> None:
    (answer,) = found(models, "quokka-2", "--render")
    assert (answer["template"], answer["template_source"]) == ("tokenizer", "tokenizer")
    assert (answer["prompt"], answer["roles"]) == (None, None)
    assert "give the model's folder, or download it" in answer["notes"][-1]


def test_a_family_that_does_not_chat_has_no_prompt(models: Models, rows: Path) -> None:
    rows.write_text(rows.read_text().replace('names = ["wombat"]', 'names = ["embed"]', 1))
    (answer,) = found(models, "my-embed", "--render")
    assert (answer["family"], answer["template"], answer["prompt"]) == ("wombat-a", "none", None)
    assert answer["notes"][-1].startswith("no chat model")


def test_several_rows_that_fit_equally_are_an_ambiguity_with_an_object(models: Models) -> None:
    (answer,) = found(models, "wombat-7b", "--render", code=8)
    assert (answer["family"], answer["prompt"], answer["template"]) == (None, None, None)
    assert [each["family"] for each in answer["candidates"][:2]] == ["wombat-a", "wombat-b"]
    assert answer["error"]["code"] == "ambiguous"
    ended = models("match", "wombat-7b")
    assert (ended.code, ended.out) == (8, "")
    assert ended.err.count("\n") == 1
    assert all(word in ended.err for word in ("wombat-a", "wombat-b", "--template"))


def test_a_name_that_nothing_fits_brings_what_comes_near(models: Models) -> None:
    (answer,) = found(models, "quoka-7b", code=3)
    assert (answer["family"], answer["template"], answer["matched_by"]) == (None, None, [])
    assert "island/quokka-7b" in answer["near"]
    ended = models("match", "quoka-7b")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("error: no family fits 'quoka-7b' (did you mean island/quokka-7b")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["quokka"], 0),
        (["quokka", "zzz"], 3),
        (["wombat", "zzz", "quokka"], 8),
        (["zzz", "wombat"], 8),
    ],
)
def test_of_several_names_the_worst_gives_the_exit_code(models: Models, names: list[str], code: int) -> None:
    assert [answer["name"] for answer in found(models, *names, code=code)] == names


def test_names_come_from_stdin_in_order_without_empty_lines(models: Models) -> None:
    answers = found(
        models, "first-quokka", "-", "last-quokka", stdin=b"\nquokka-2\r\n\n  quokka b \n\xff-quokka"
    )
    assert [answer["name"] for answer in answers] == [
        "first-quokka",
        "quokka-2",
        "quokka b",
        "\udcff-quokka",
        "last-quokka",
    ]
    assert {answer["family"] for answer in answers} == {"quokka", "quokka-2"}


def test_without_a_name_it_is_a_mistake_of_usage(models: Models) -> None:
    assert models("match").code == 2


def test_stdin_without_names_gives_nothing(models: Models) -> None:
    assert found(models, "-") == []


@pytest.mark.parametrize("name", ["", " ", "/", "a\0b", "\ud800", "x" * 10_000, "../..", "~nobody/x", "."])
def test_a_strange_name_is_answered_not_raised(models: Models, name: str) -> None:
    (answer,) = found(models, name, code=3)
    assert (answer["name"], answer["family"]) == (name, None)


def test_people_get_lines(models: Models) -> None:
    ended = models("match", "quokka-7b", "--explain")
    assert (ended.code, ended.err) == (0, "")
    assert [" ".join(line.split()) for line in ended.out.splitlines()] == [
        "quokka-7b",
        "family quokka (Quokka)",
        "kind decoder",
        "template vicuna_v1.1 (of the family)",
        'stops at "###", token 7, the model\'s own end tokens',
        "loading use_fast false",
        'because name contains "quokka"',
        "then no other family fits",
    ]


def test_explaining_shows_the_runner_ups_and_why(models: Models) -> None:
    out = models("match", "quokka-2", "--explain").out
    assert 'then      quokka: name contains "quokka"' in out
    ended = models("match", "wombat", "--explain")
    assert ended.code == 8
    assert [line for line in ended.out.splitlines() if "wombat-b: " in line] != []


def model_folder(path: Path, **config: Any) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_is_known_by_its_facts_whatever_its_name(models: Models, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "zzz", bilby=True)
    (answer,) = found(models, str(folder))
    assert (answer["family"], answer["folder"]) == ("bilby", str(folder))
    assert "config.json" in answer["matched_by"][0]


def test_a_generic_folder_reads_as_the_one_above(models: Models, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "my-quokka" / "checkpoint-100")
    assert found(models, str(folder))[0]["family"] == "quokka"


def test_a_downloaded_model_is_looked_into_and_that_is_said(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = model_folder(tmp_path / "hub" / "models--a--zzz" / "snapshots" / "0123", bilby=True)
    by_id, by_repository = found(models, "a/zzz", str(folder.parent.parent))
    assert (by_id["family"], by_repository["family"]) == ("bilby", "bilby")
    assert by_id["notes"] == [f"its files are here: {folder}"]


def test_an_adapter_takes_the_family_of_its_base(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    base = model_folder(tmp_path / "hub" / "models--a--zzz" / "snapshots" / "0123", bilby=True)
    (base / "chat_template.jinja").write_text("B")
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "a/zzz"}))
    (answer,) = found(models, str(adapter))
    assert (answer["family"], answer["matched_by"][0]) == ("bilby", "adapter_config.json: base model a/zzz")


@pytest.mark.parametrize(
    ("name", "template", "source"),
    [("zzz-quokka", "tokenizer", "tokenizer"), ("bilby", "vicuna_v1.1", "row")],
)
def test_the_tokenizers_template_goes_before_a_row_that_does_not_win(
    models: Models, tmp_path: Path, name: str, template: str, source: str
) -> None:
    folder = model_folder(tmp_path / name)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (answer,) = found(models, str(folder), "--render")
    assert (answer["template"], answer["template_source"]) == (template, source)
    assert (answer["prompt"] == "Hello!") is (source == "tokenizer")


def test_a_damaged_folder_is_an_error_of_its_own_among_others(models: Models, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "quokka")
    (folder / "config.json").write_text("{")
    broken, fine = found(models, str(folder), "quokka", code=7)
    assert (broken["family"], broken["error"]["code"], fine["family"]) == (None, "bad_file", "quokka")
    assert "config.json is not valid JSON" in models("match", str(folder)).err


def test_a_template_of_the_users_goes_before_all(models: Models, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("<{{ messages[-1].content }}>")
    own = str(tmp_path / "own.jinja")
    (answer,) = found(models, "bilby", "--template", own, "--render")
    assert (answer["template"], answer["template_source"]) == (own, "flag")
    assert (answer["prompt"], answer["roles"]) == ("<What's the weather?>", None)
    (answer,) = found(models, "quokka-2", "--template", "alpaca")
    assert (answer["template"], answer["template_source"]) == ("alpaca", "flag")
    assert answer["roles"] == ["### Instruction", "### Response"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("quokka", "--template", "no-such"), 3, "no-such"),
        (("quokka", "--template", "./no-such.jinja"), 3, "no-such.jinja"),
        (("quokka", "--adapter-file", "no-such.toml"), 3, "no-such.toml"),
        (("quokka", "bilby", "--render"), 2, "add --json"),
        (("-", "--render"), 2, "add --json"),
        (("-", "--render=-", "--json"), 2, "stdin"),
    ],
)
def test_a_mistake_is_one_line(models: Models, args: tuple[str, ...], code: int, said: str) -> None:
    ended = models("match", *args)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err


def test_a_class_in_a_file_that_the_user_names_is_asked_first(models: Models, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from llmctl.adapters import BaseModelAdapter, register_model_adapter\n"
        "class ZzzAdapter(BaseModelAdapter):\n"
        "    def match(self, model_path):\n        return 'zzz' in model_path\n"
        "register_model_adapter(ZzzAdapter)\n"
    )
    (answer,) = found(models, "zzz", "--adapter-file", str(tmp_path / "mine.py"))
    assert answer["family"] == "class.zzz"


def test_the_users_own_folder_of_rows_is_read(llmctl: Llmctl, rows: Path) -> None:
    folder = Path(os.environ["LLMCTL_CONFIG_HOME"]) / "adapters"
    folder.mkdir(parents=True)
    rows.rename(folder / "mine.toml")
    ended = llmctl("models", "match", "quokka", "--json")
    assert json.loads(ended.out)["family"] == "quokka"


SLOW = {"torch", "transformers", "numpy", "asyncio", "jinja2", "httpx2", "huggingface_hub", "pydantic"}


@pytest.mark.parametrize("args", [("match", "lmsys/vicuna-7b-v1.5"), ("list",), ("match", "demo")])
def test_it_imports_nothing_slow(args: tuple[str, ...]) -> None:
    modules = modules_after("models", *args)
    assert "llmctl.adapters.registry" in modules
    assert modules & SLOW == set()


@pytest.mark.parametrize("args", [("match", "lmsys/vicuna-7b-v1.5"), ("list",)])
def test_it_costs_no_more_than_three_times_the_help(args: tuple[str, ...]) -> None:
    times: dict[str, list[float]] = {"help": [], "models": []}
    for _ in range(NUM_TIMES):
        times["help"].append(cpu_seconds("-m", "llmctl", "--help"))
        times["models"].append(cpu_seconds("-m", "llmctl", "models", *args))
    assert min(times["models"]) <= COST_CAP * min(times["help"]), times


def test_thousands_of_names_are_answered_in_one_go(models: Models) -> None:
    names = "\n".join(f"org/{'quokka' if number % 2 else 'zzz'}-{number}" for number in range(2000))
    before = time.process_time()
    answers = found(models, "-", code=3, stdin=names.encode())
    assert len(answers) == 2000
    assert sum(answer["family"] == "quokka" for answer in answers) == 1000
    # Ten thousand in a few seconds; building the registry for each would take a minute.
    assert time.process_time() - before < 5


def test_a_template_that_the_user_names_settles_a_tie(models: Models) -> None:
    tied = models("match", "zephyr-vicuna")
    assert tied.code == 8
    settled = models("match", "zephyr-vicuna", "--template", "zephyr", "--json", "--render")
    shown = json.loads(settled.out)
    assert (settled.code, shown["family"], shown["template"]) == (0, None, "zephyr")
    assert shown["prompt"].endswith("<|assistant|>\n")
    assert any("several families" in note for note in shown["notes"])


def test_a_prompt_that_there_is_not_is_an_error_where_it_is_all_that_was_asked(models: Models) -> None:
    ended = models("match", "Qwen/Qwen3-0.6B", "--render")
    assert (ended.code, ended.out) == (2, "")
    assert "no prompt for Qwen/Qwen3-0.6B" in ended.err
    assert models("match", "Qwen/Qwen3-0.6B", "--render", "--json").code == 0


def test_a_path_where_nothing_is_says_that_only_its_name_counts(models: Models) -> None:
    ended = models("match", "/no/such/folder/vicuna-7b")
    assert ended.code == 0
    assert "there is no such folder: by its name alone" in ended.out
