"""`llmctl models list`: families and local models, their filters and fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.models.conftest import Models
from tests.conftest import Llmctl
from tests.loading.headers import llama_8b


def listed(models: Models, *args: str) -> list[dict[str, Any]]:
    ended = models("list", "--json", *args)
    assert ended.code == 0
    rows: list[dict[str, Any]] = json.loads(ended.out)
    assert (ended.err == "") is bool(rows)
    return rows


def test_families_come_with_what_a_reader_needs(models: Models, rows: Path) -> None:
    found = {row["id"]: row for row in listed(models)}
    assert found["quokka"] == {
        "id": "quokka",
        "title": "Quokka",
        "kind": "decoder",
        "template": "vicuna_v1.1",
        "examples": ["island/quokka-7b"],
        "about": "Small and friendly.",
        "link": "",
        "note": "",
        "origin": str(rows),
    }
    assert found["vicuna"]["origin"] == "built in"
    assert len(found) > 50


def test_the_users_own_come_first_then_by_id(models: Models) -> None:
    ids = [row["id"] for row in listed(models)]
    assert ids[:5] == ["bilby", "quokka", "quokka-2", "wombat-a", "wombat-b"]
    assert ids[5:] == sorted(ids[5:])


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (("--family", "quokka-2"), ["quokka-2"]),
        (("--kind", "embedding", "--search", "wombat"), ["wombat-a"]),
        (("--search", "QUOKKA friendly"), ["quokka"]),
        (("--search", "island/quokka-2"), ["quokka-2"]),
        (("--search", "no such words"), []),
        (("--family", "quokka", "--kind", "embedding"), []),
    ],
)
def test_filters_all_have_to_hold(models: Models, args: tuple[str, ...], ids: list[str]) -> None:
    assert [row["id"] for row in listed(models, *args)] == ids


def test_people_get_a_table(models: Models) -> None:
    ended = models("list", "--search", "quokka")
    heading, *lines = ended.out.splitlines()
    assert heading.split() == ["FAMILY", "KIND", "TEMPLATE", "ORIGIN", "ABOUT"]
    assert [line.split()[:3] for line in lines] == [
        ["quokka", "decoder", "vicuna_v1.1"],
        ["quokka-2", "decoder", "tokenizer"],
    ]
    assert lines[0].endswith("Small and friendly.")


def test_nothing_found_is_said_and_no_error(models: Models) -> None:
    ended = models("list", "--search", "no such words")
    assert (ended.code, ended.out, ended.err) == (0, "", "nothing fits these conditions\n")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--family", "quoka"), 3, "quokka"),
        (("--kind", "tree"), 2, "embedding"),
    ],
)
def test_a_family_or_kind_that_is_not_known_is_refused(
    models: Models, args: tuple[str, ...], code: int, said: str
) -> None:
    ended = models("list", *args)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err
    assert repr(args[1]) in ended.err


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def test_local_models_are_the_embedded_and_the_downloaded(models: Models, hub: Path) -> None:
    folder = llama_8b(hub / "models--island--quokka-7b" / "snapshots" / "0123")
    demo, base, quokka = listed(models, "--local")
    assert (demo["name"], base["name"]) == ("demo", "demo-base")
    assert (demo["bytes"], demo["parameters"], demo["dtype"]) == (4_591_104, 2_295_552, "BF16")
    assert quokka == {
        "name": "island/quokka-7b",
        "bytes": 16_060_522_496,
        "parameters": 8_030_261_248,
        "dtype": "BF16",
        "quantisation": None,
        "context": 131072,
        "family": "quokka",
        "kind": "decoder",
        "folder": str(folder),
        "error": None,
    }
    out = models("list", "--local").out
    assert ["island/quokka-7b", "15.0", "GiB", "8.0", "B", "BF16", "-", "131072", "quokka"] in [
        line.split() for line in out.splitlines()
    ]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("--family", "quokka"), ["island/quokka-7b"]),
        (("--search", "Quokka"), ["island/quokka-7b"]),
        (("--search", "demo base"), ["demo-base"]),
        (("--kind", "embedding"), []),
    ],
)
def test_filters_hold_for_local_models_too(
    models: Models, hub: Path, args: tuple[str, ...], names: list[str]
) -> None:
    llama_8b(hub / "models--island--quokka-7b" / "snapshots" / "0123")
    assert [row["name"] for row in listed(models, "--local", *args)] == names


def test_a_broken_model_is_a_row_that_says_so(models: Models, hub: Path) -> None:
    folder = hub / "models--island--quokka-7b" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    row = listed(models, "--local")[-1]
    assert (row["name"], row["bytes"]) == ("island/quokka-7b", None)
    assert "no weights" in row["error"]
    assert models("list", "--local").out.splitlines()[-1].split()[:2] == ["island/quokka-7b", "-"]


def test_without_downloads_the_embedded_models_are_there(llmctl: Llmctl, hub: Path) -> None:
    ended = llmctl("models", "list", "--local")
    assert (ended.code, [line.split()[0] for line in ended.out.splitlines()]) == (
        0,
        ["MODEL", "demo", "demo-base"],
    )
