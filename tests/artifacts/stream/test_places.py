"""Where a result may go: never upon what is read, never upon what somebody else put there."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmctl.artifacts.stream import carry, walk
from llmctl.artifacts.stream.job import Job
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import split
from llmctl.core.errors import AccessError, BadFileError, DoesNotFitError, LlmctlError, UsageError
from tests.artifacts.stream.test_walk import TENSORS, all_tensors, copy, job_for, model, same, steps_of


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source.open(model(tmp_path / "in", TENSORS, LICENSE="free", tokenizer__json="{}"))


@pytest.mark.parametrize("leads_to", ["nowhere", "link", "elsewhere"])
def test_a_link_is_refused_before_anything_is_done(source: Source, tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(leads_to)
    with pytest.raises(UsageError, match="link is a link"):
        copy(tmp_path / "link", source)


@pytest.mark.parametrize("name", ["x" * 300, "in/config.json/x", "loop/x"])
def test_a_place_that_cannot_be_is_one_error(source: Source, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LlmctlError, match=r"cannot write|which is read"):
        copy(tmp_path / name, source)


def test_a_disk_that_is_mounted_there_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    with pytest.raises(UsageError, match="is a disk's own folder"):
        copy(tmp_path / "disk", source)


def test_a_folder_above_and_a_linked_parent_are_followed(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real" / "sub")
    copy(Path("../up"), source)
    copy(tmp_path / "link" / "through", source)
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["sub", "through", "up"]


def test_the_folder_where_linked_weights_really_lie_is_never_the_result(tmp_path: Path) -> None:
    real = model(tmp_path / "blobs", TENSORS)
    (tmp_path / "snapshot").mkdir()
    for path in real.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    with pytest.raises(UsageError, match="which is read"):
        copy(real, Source.open(tmp_path / "snapshot"), overwrite=True)
    copy(tmp_path / "out", Source.open(tmp_path / "snapshot"))
    assert all_tensors(tmp_path / "out").keys() == TENSORS.keys()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def ended(job: Job, source: Source, then: Callable[[], object]) -> None:
    with job:
        walk.transform(split(steps_of(source)), [source], same, job)
        job.carry(carry.carried(source.folder))
        then()
        job.finish()


def test_what_came_into_the_place_meanwhile_stays_and_so_does_the_work(
    source: Source, tmp_path: Path
) -> None:
    def come() -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "config.json").write_text("mine")
        (tmp_path / "out" / "model.safetensors").write_text("mine")

    with pytest.raises(UsageError, match="out exists") as told:
        ended(job_for(tmp_path / "out", source), source, come)
    assert "what is finished stays" in (told.value.hint or "")
    assert (tmp_path / "out" / "config.json").read_text() == "mine"
    with job_for(tmp_path / "out", source, overwrite=True) as job:
        assert job.finished.keys() == {"model.safetensors"}


def test_a_lock_that_went_away_with_its_folder_is_not_taken(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmctl.artifacts.stream import job as module
    from llmctl.core.errors import BusyError

    def gone(descriptor: object, how: int) -> None:
        (tmp_path / ".out.llmctl-part" / "lock").unlink(missing_ok=True)

    monkeypatch.setattr(module.fcntl, "flock", gone)
    with pytest.raises(BusyError), job_for(tmp_path / "out", source):
        pass


def test_a_file_that_cannot_be_read_is_named(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = carry.carried(source.folder)
    (source.folder / "LICENSE").unlink()
    with pytest.raises(AccessError, match=r"cannot read .*LICENSE"), job_for(tmp_path / "out", source) as job:
        job.carry(files)


def test_a_full_disk_at_any_file_is_one_error_and_the_next_run_is_right(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, num_failed = os.fsync, 0
    for number in range(1, 40):
        left, out = number, tmp_path / f"out{number}"

        def full(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with contextlib.suppress(DoesNotFitError):
            copy(out, source, max_bytes=1)
        if left > 0:
            break
        num_failed += 1
        monkeypatch.setattr("os.fsync", whole)
        if not out.exists():
            copy(out, source, max_bytes=1)
        assert all_tensors(out).keys() == TENSORS.keys()
    # Five shards with a note of each, index, three files, folders.
    assert num_failed > 15
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_weight_is_carried_wherever_it_lies(tmp_path: Path) -> None:
    folder = model(tmp_path / "in", TENSORS)
    for name in (
        *("assets/logo.png", "additional_chat_templates/tools.jinja", "1_Dense/model.safetensors"),
        *(
            "1_Dense/config.json",
            "checkpoint-5/config.json",
            "checkpoint-5/optimizer.pt",
            "pytorch_model.bin",
        ),
        *(".git/config", "assets/.hidden", "code/__pycache__/x.pyc", "code/model.py", "unicode ü.txt"),
    ):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    assert [each.name for each in carry.carried(folder, without=("config.json",))] == [
        *("1_Dense/config.json", "1_Dense/model.safetensors", "additional_chat_templates/tools.jinja"),
        *("assets/logo.png", "code/model.py", "unicode ü.txt"),
    ]
    copy(tmp_path / "out", Source.open(folder))
    assert (tmp_path / "out" / "assets" / "logo.png").read_text() == "assets/logo.png"


def test_a_link_to_nowhere_is_not_left_out_in_silence(source: Source) -> None:
    (source.folder / "chat_template.jinja").symlink_to("gone")
    with pytest.raises(BadFileError, match=r"chat_template\.jinja is no file, or a link to none"):
        carry.carried(source.folder)


def test_weights_of_half_bytes_are_copied(tmp_path: Path) -> None:
    folder = model(tmp_path / "in", {"x": torch.ones(1)})
    header = b'{"x":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + b"\x01\x23\x45\x67"
    (folder / "model.safetensors").write_bytes(data)
    copy(tmp_path / "out", Source.open(folder))
    assert (tmp_path / "out" / "model.safetensors").read_bytes()[-4:] == b"\x01\x23\x45\x67"


def test_a_folder_of_documents_with_a_config_is_not_replaced(source: Source, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="docs holds no model"):
        copy(tmp_path / "docs", source, overwrite=True)


def test_a_shard_that_was_cut_after_it_was_noted_is_made_anew(source: Source, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(job_for(tmp_path / "out", source), source, _interrupt)
    shard = tmp_path / ".out.llmctl-part" / "files" / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with job_for(tmp_path / "out", source) as job:
        assert job.finished == {}


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_programs_stay_programs_and_links_out_of_the_folder_are_told(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("x")
    script, note = source.folder / "run.sh", source.folder / "NOTES.md"
    script.write_text("#!/bin/sh")
    script.chmod(0o755)
    note.symlink_to(tmp_path / "secret")
    with caplog.at_level("WARNING", "llmctl"), job_for(tmp_path / "out", source) as job:
        job.carry(carry.carried(source.folder))
        modes = {
            each.name: (job.folder / each.name).stat().st_mode & 0o111
            for each in carry.carried(source.folder)
        }
    assert (modes["run.sh"], modes["NOTES.md"]) == (0o111, 0)
    assert [record.getMessage() for record in caplog.records] == [
        f"{note} is a link to {(tmp_path / 'secret').resolve()}, which is copied"
    ]


def test_what_is_left_behind_is_named(source: Source) -> None:
    assert carry.left_behind(source.folder, source.files) == ()
    for name in ("speaker.pt", "model.safetensors.index.json", ".hidden", "README.md"):
        (source.folder / name).write_text("x")
    assert carry.left_behind(source.folder, source.files) == (
        "left behind, as weights that are not read: speaker.pt",
    )
