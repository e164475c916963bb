"""The commands of `llmctl delta`: the round trip, what they say, and how they refuse."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.artifacts.delta.manifest import FILE, digest_of
from llmctl.demo import MODELS
from tests.artifacts.delta.pairs import hashes_of, write
from tests.conftest import Llmctl
from tests.hub import RIGHT_TOKEN
from tests.hub_uploads import WritableHub

BASE, TARGET = "demo-base", "demo"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def delta(here: Path, llmctl: Llmctl) -> Path:
    assert llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d").code == 0
    return here / "d"


def test_the_round_gives_demo_back(delta: Path, here: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "apply", "--base", BASE, "--delta", "d", "--out", "t")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == "demo-base with d: 29 tensors, 4.4 MiB in 1 file, bit for bit"
    assert hashes_of(here / "t") == hashes_of(MODELS[TARGET])
    ended = llmctl("delta", "verify", "d", "--base", BASE, "--target", "t")
    assert ended.out == "d, base demo-base, target t: as it was, every byte\n"


def test_make_says_what_it_did(here: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d", "--json")
    told = json.loads(ended.out)
    assert told["tensors"] == {"changed": 29}
    assert told["delta_bytes"] < 0.75 * told["target_bytes"]
    assert "tokenizer.json" in told["carried"]


def test_show_says_what_it_is(delta: Path, llmctl: Llmctl) -> None:
    lines = llmctl("delta", "show", "d").out.splitlines()
    assert lines[1].split(maxsplit=1) == ["format", "exact, bit for bit"]
    assert lines[2].startswith("base      demo-base, content ")
    told = json.loads(llmctl("delta", "show", "d", "--json").out)
    assert (told["base"], told["target"], told["format"]) == ("demo-base", "demo", "exact")


def test_a_dry_run_leaves_no_trace(here: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d", "--dry-run")
    assert "would be written to d" in ended.out
    assert not (here / "d").exists()


def test_another_base_is_one_line(delta: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "apply", "--base", TARGET, "--delta", "d", "--out", "t")
    assert ended.code == 7
    assert ended.err.startswith("error: demo is not the base of the delta d: 29 of 29 tensors differ: model.")
    assert ended.err.count("\n") == 1
    ended = llmctl("delta", "verify", "d", "--base", TARGET)
    assert (ended.code, ended.err.startswith("error: this is not the base of the delta d")) == (7, True)


def test_a_damaged_delta_is_told_by_verify(delta: Path, llmctl: Llmctl) -> None:
    file = delta / "delta.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    ended = llmctl("delta", "verify", "d")
    assert ended.code == 7
    assert ended.err.startswith("error: the delta d is damaged: 1 tensor differs: ")


@pytest.mark.parametrize(
    "args",
    [
        ("make", "--base", "d", "--target", TARGET, "--out", "x"),
        ("make", "--base", BASE, "--target", "d", "--out", "x"),
        ("apply", "--base", "d", "--delta", "d", "--out", "x"),
    ],
)
def test_a_delta_of_a_delta_is_refused(delta: Path, llmctl: Llmctl, args: tuple[str, ...]) -> None:
    ended = llmctl("delta", *args)
    assert (ended.code, ended.err.startswith("error: d is a delta, not a model")) == (7, True)


@pytest.mark.parametrize("name", [TARGET, "./none", "owner/none"])
def test_what_is_no_delta_is_refused(here: Path, llmctl: Llmctl, name: str) -> None:
    ended = llmctl("delta", "apply", "--base", BASE, "--delta", name, "--out", "x")
    assert ended.code in (3, 5, 7)
    assert ended.err.count("\n") == 1


def test_a_place_that_is_taken_is_kept(delta: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d")
    assert (ended.code, ended.err) == (
        2,
        "error: d exists (--overwrite replaces it; or name another folder)\n",
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--format", "bit"), "--format must be exact or add"),
        (("--private",), "--private is for a repository of the hub"),
        (("--exclude", "*.bias"), "--exclude '*.bias' is no regular expression"),
        (("--delta-path", "x"), "make has no --delta-path (it is called --out here)"),
    ],
)
def test_wrong_flags_are_told(here: Path, llmctl: Llmctl, flags: tuple[str, ...], told: str) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "x", *flags)
    assert (ended.code, told in ended.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("make", "--base", BASE, "--target", TARGET, "--out", "x"),
        ("make", "--base", BASE, "--target", TARGET, "--out", "x", "--format", "add"),
        ("apply", "--base", BASE, "--delta", "d", "--out", "x"),
    ],
)
def test_each_command_is_one_object_and_a_dry_run_writes_nothing(
    delta: Path, here: Path, llmctl: Llmctl, arguments: tuple[str, ...]
) -> None:
    before = sorted(path.name for path in here.iterdir())
    dry = llmctl("delta", *arguments, "--dry-run", "--json")
    assert sorted(path.name for path in here.iterdir()) == before
    ended = llmctl("delta", *arguments, "--json")
    told, really = json.loads(dry.out), json.loads(ended.out)
    assert (dry.code, dry.err, ended.code, ended.err) == (0, "", 0, "")
    assert (told["dry_run"], told["seconds"], really["dry_run"]) == (True, None, False)
    assert told.keys() == really.keys()
    assert told["carried"] == really["carried"]


def test_an_error_is_an_object_too(delta: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "apply", "--base", TARGET, "--delta", "d", "--out", "t", "--json")
    assert (ended.code, ended.out, json.loads(ended.err)["error"]["code"]) == (7, "", "bad_file")
    ended = llmctl("delta", "verify", "d", "--base", TARGET, "--json")
    assert (ended.code, json.loads(ended.out)["is_right"]) == (7, False)
    assert "this is not the base" in json.loads(ended.err)["error"]["message"]


def test_a_delta_is_neither_base_nor_target(delta: Path, llmctl: Llmctl) -> None:
    for models in (("d", TARGET), (BASE, "d")):
        ended = llmctl("delta", "make", "--base", models[0], "--target", models[1], "--out", "x")
        assert (ended.code, ended.err.startswith("error: d is a delta, not a model")) == (7, True)


def test_a_folder_has_no_revision(delta: Path, llmctl: Llmctl) -> None:
    for command in (("show", "d"), ("apply", "--base", BASE, "--delta", "d", "--out", "x")):
        ended = llmctl("delta", *command, "--revision", "main")
        assert (ended.code, "--revision main is for what is on the hub" in ended.err) == (2, True)


def test_a_pattern_that_finds_nothing_is_told(here: Path, llmctl: Llmctl) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d", "--exclude", "nothing")
    assert (ended.code, ended.err) == (0, "--exclude 'nothing' finds no tensor\n")


def test_names_that_could_drive_a_terminal_make_one_line_and_harmless_json(
    here: Path, llmctl: Llmctl
) -> None:
    import torch

    odd = "x\x1b[2J\ny\x9b\ud7ff"
    write(here / "b", {odd: torch.zeros(3)})
    write(here / "t", {odd: torch.ones(3)})
    write(here / "other", {odd: torch.full((3,), 2.0)})
    assert llmctl("delta", "make", "--base", "b", "--target", "t", "--out", "d").code == 0
    ended = llmctl("delta", "apply", "--base", "other", "--delta", "d", "--out", "o")
    assert (ended.code, ended.err.count("\n")) == (7, 1)
    ended = llmctl("delta", "show", "d", "--json")
    assert (odd in json.loads(ended.out)["largest"], "\x9b" in ended.out) == (True, False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub() as running:
        for name, value in running.environ(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
        # It was read when the client was imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield running


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("form", ["exact", "add"])
def test_a_delta_goes_over_the_hub(hub: WritableHub, here: Path, llmctl: Llmctl, form: str) -> None:
    upload = ("--hub-repo-id", "me/delta", "--private")
    ended = llmctl(
        "delta", "make", "--base", BASE, "--target", TARGET, "--out", "d", "--format", form, *upload
    )
    assert (ended.code, f"uploaded to {hub.url}/me/delta" in ended.out) == (0, True)
    assert hub.repo("me/delta").access == "private"
    ended = llmctl("delta", "apply", "--base", BASE, "--delta", "me/delta", "--out", "t")
    assert (ended.code, ended.err) == (0, "")
    assert (hashes_of(here / "t") == hashes_of(MODELS[TARGET])) is (form == "exact")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_model_of_pickles_on_the_hub_is_a_base(hub: WritableHub, here: Path, llmctl: Llmctl) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(MODELS[BASE] / "model.safetensors"), here / "pytorch_model.bin")
    files = {path.name: path for path in MODELS[BASE].iterdir() if path.suffix != ".safetensors"}
    hub.add("old/base", {**files, "pytorch_model.bin": here / "pytorch_model.bin"})
    assert llmctl("delta", "make", "--base", "old/base", "--target", TARGET, "--out", "d").code == 0
    assert llmctl("delta", "apply", "--base", BASE, "--delta", "d", "--out", "t").code == 0
    assert hashes_of(here / "t") == hashes_of(MODELS[TARGET])


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_files_in_folders_go_over_the_hub_too(hub: WritableHub, here: Path, llmctl: Llmctl) -> None:
    import torch

    write(here / "b", {"x": torch.zeros(3)})
    target = write(here / "t", {"x": torch.ones(3)})
    (target / "assets").mkdir()
    (target / "assets" / "logo.png").write_text("picture")
    upload = ("--hub-repo-id", "me/pictures")
    assert llmctl("delta", "make", "--base", "b", "--target", "t", "--out", "d", *upload).code == 0
    ended = llmctl("delta", "apply", "--base", "b", "--delta", "me/pictures", "--out", "o")
    assert (ended.code, ended.err) == (0, "")
    assert (here / "o" / "assets" / "logo.png").read_text() == "picture"


@pytest.mark.parametrize(
    ("repo", "code", "told"), [("no id", 2, "cannot be a repository"), ("me/d", 4, "needs a token")]
)
def test_what_cannot_be_uploaded_is_refused_before_the_work(
    here: Path, llmctl: Llmctl, repo: str, code: int, told: str
) -> None:
    ended = llmctl("delta", "make", "--base", BASE, "--target", TARGET, "--out", "d", "--hub-repo-id", repo)
    assert (ended.code, told in ended.err) == (code, True)
    assert list(here.glob("*d*")) == [here / "stdin"]


def test_what_is_excluded_and_has_another_shape_is_told(here: Path, llmctl: Llmctl) -> None:
    import torch

    write(here / "b", {"x": torch.zeros(3, 2), "y": torch.zeros(1)})
    write(here / "t", {"x": torch.zeros(4, 2), "y": torch.ones(1)})
    (here / "t" / "spk.pt").write_text("?")
    ended = llmctl("delta", "make", "--base", "b", "--target", "t", "--out", "d", "--exclude", "x")
    assert ended.code == 0
    assert "1 excluded tensors have another shape or type in t" in ended.err
    assert "left behind, as weights that are not read: spk.pt" in ended.err
    ended = llmctl("delta", "apply", "--base", "b", "--delta", "d", "--out", "o", "--dry-run")
    assert "their numbers were not read" in ended.out


@pytest.mark.parametrize("name", ["", "x" * 300, "\x1b[31mRED\n"])
def test_a_delta_that_names_its_target_oddly_is_damaged(delta: Path, llmctl: Llmctl, name: str) -> None:
    value = json.loads((delta / FILE).read_text())
    value["target_name"] = name
    value["digest"] = digest_of(value)
    (delta / FILE).write_text(json.dumps(value))
    ended = llmctl("delta", "show", "d")
    assert (ended.code, ended.err.count("\n")) == (7, 1)
    assert "is no name of a model" in ended.err
