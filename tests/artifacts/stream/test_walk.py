"""The streaming core: what is read is what stands in the files, and what is written is whole or not there."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmctl.artifacts.stream import carry, walk
from llmctl.artifacts.stream.job import Job, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import Planned, Step, split
from llmctl.core.errors import AccessError, BadFileError, BusyError, DoesNotFitError, UsageError
from llmctl.core.progress import SilentProgress


def model(folder: Path, tensors: Mapping[str, Tensor], **others: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, text in others.items():
        (folder / name.replace("__", ".")).write_text(text)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


TENSORS = {
    "b": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "a": torch.tensor(7.0),
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False, True]),
    "ids": torch.arange(5),
}


def steps_of(source: Source) -> list[Step]:
    return [
        Step(
            name=name, reads=((0, name),), writes=(Planned(name=name, dtype=entry.dtype, shape=entry.shape),)
        )
        for name, entry in source.entries.items()
    ]


def same(step: Step, tensors: Sequence[Tensor]) -> walk.Made:
    return walk.Made(tensors=tensors, facts={"numbers": tensors[0].numel()})


def job_for(target: Path, source: Source, *, key: str = "key", overwrite: bool = False, room: int = 0) -> Job:
    return Job(
        target, key=key, sources=[source], num_bytes=room, progress=SilentProgress(), overwrite=overwrite
    )


def copy(target: Path, source: Source, *, max_bytes: int = 10**9, overwrite: bool = False) -> None:
    with job_for(target, source, overwrite=overwrite) as job:
        shards = split(steps_of(source), max_bytes=max_bytes)
        walk.transform(shards, [source], same, job)
        job.carry(carry.carried(source.folder))
        job.finish()


def all_tensors(folder: Path) -> dict[str, Tensor]:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source.open(model(tmp_path / "in", TENSORS, LICENSE="free", tokenizer__json="{}"))


@pytest.mark.parametrize("max_bytes", [1, 30, 10**9])
def test_a_copy_is_the_same_however_it_is_sharded(source: Source, tmp_path: Path, max_bytes: int) -> None:
    copy(tmp_path / "out", source, max_bytes=max_bytes)
    found = all_tensors(tmp_path / "out")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert Source.open(tmp_path / "out").num_bytes == source.num_bytes
    assert (tmp_path / "out" / "LICENSE").read_text() == "free"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_read_is_what_stands_there(source: Source) -> None:
    assert set(source.names) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(source.read(name), tensor)
        assert source.entry(name).shape == tuple(tensor.shape)
    assert source.read_bytes("ids", 8, 16).tolist() == [1, *[0] * 7]
    with pytest.raises(BadFileError, match="has no tensor c"):
        source.read("c")


def test_pickles_are_read_without_running_them(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    table = torch.randn(4, 3)
    torch.save({"table": table, "head": table, "turned": table.t()}, folder / "pytorch_model.bin")
    source = Source.open(folder, takes_pickles=True)
    assert source.ties == {"head": "table"}
    assert torch.equal(source.read("turned"), table.t())
    assert torch.equal(source.read("head"), table)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_holds_more_than_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    torch.save({"x": Evil()}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(BadFileError, match="holds more than tensors"):
        Source.open(tmp_path / "old", takes_pickles=True)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    file = tmp_path / "old" / "pytorch_model.bin"
    torch.save({"x": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadFileError, match="is damaged"):
        Source.open(tmp_path / "old", takes_pickles=True)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_pickle_with_other_bytes_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    file = tmp_path / "old" / "pytorch_model.bin"
    for is_zip in (True, False):
        torch.save({"x": torch.ones(9), "y": torch.zeros(2)}, file, _use_new_zipfile_serialization=is_zip)
        whole = file.read_bytes()
        for place in range(0, min(len(whole), 900), 5):
            file.write_bytes(whole[:place] + b"\x51" + whole[place + 1 :])
            with contextlib.suppress(BadFileError):
                source = Source.open(tmp_path / "old", takes_pickles=True)
                assert [source.read_bytes(name).numel() for name in source.names] != []


def test_a_tensor_that_unpacks_to_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    torch.save({"x": torch.ones(1).expand(10**12)}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(BadFileError, match="x is told to be larger"):
        Source.open(tmp_path / "old", takes_pickles=True)


def test_a_target_that_exists_is_kept_unless_it_may_be_replaced(source: Source, tmp_path: Path) -> None:
    copy(tmp_path / "out", source)
    (tmp_path / "out" / "own.txt").touch()
    with pytest.raises(UsageError, match="exists"):
        copy(tmp_path / "out", source)
    assert (tmp_path / "out" / "own.txt").exists()
    copy(tmp_path / "out", source, overwrite=True)
    assert not (tmp_path / "out" / "own.txt").exists()


def test_a_folder_that_is_no_model_is_never_replaced(source: Source, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").touch()
    with pytest.raises(UsageError, match="holds no model"):
        copy(tmp_path / "home", source, overwrite=True)


@pytest.mark.parametrize("place", ["in", ".", "in/below"])
def test_an_input_is_never_the_result(source: Source, tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="which is read"):
        copy(tmp_path / place, source, overwrite=True)


def test_an_interrupted_job_goes_on_after_its_finished_shards(source: Source, tmp_path: Path) -> None:
    seen: list[str] = []

    def interrupted(step: Step, tensors: Sequence[Tensor]) -> walk.Made:
        seen.append(step.name)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return same(step, tensors)

    shards = split(steps_of(source), max_bytes=1)
    with pytest.raises(KeyboardInterrupt), job_for(tmp_path / "out", source) as job:
        walk.transform(shards, [source], interrupted, job)
    assert not (tmp_path / "out").exists()
    num_finished = len(seen) - 1
    with job_for(tmp_path / "out", source) as job:
        facts = walk.transform(shards, [source], interrupted, job)
        job.carry(carry.carried(source.folder))
        job.finish()
    assert len(seen) == len(TENSORS) + 1
    assert num_finished == 3
    assert facts["ids"] == {"numbers": 5}
    assert torch.equal(all_tensors(tmp_path / "out")["ids"], TENSORS["ids"])


def stopped(target: Path, source: Source, error: BaseException, *, key: str = "key") -> None:
    with job_for(target, source, key=key) as job:
        walk.transform(split(steps_of(source)), [source], same, job)
        raise error


def test_another_job_does_not_take_over_what_one_has_begun(source: Source, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "out", source, KeyboardInterrupt(), key="one")
    with job_for(tmp_path / "out", source, key="other") as job:
        assert job.finished == {}


def test_what_is_refused_leaves_nothing_behind(source: Source, tmp_path: Path) -> None:
    with pytest.raises(BadFileError):
        stopped(tmp_path / "out", source, BadFileError("no"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_disk_without_the_room_is_told_before_anything_is_written(source: Source, tmp_path: Path) -> None:
    with (
        pytest.raises(DoesNotFitError, match=r"TiB are needed on the disk of .* free"),
        job_for(tmp_path / "out", source, room=10**15),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_two_jobs_for_one_place_do_not_mix(source: Source, tmp_path: Path) -> None:
    with job_for(tmp_path / "out", source), pytest.raises(BusyError), job_for(tmp_path / "out", source):
        pass


def test_a_folder_that_may_not_be_written_to_is_named(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(AccessError, match="cannot write to"), job_for(tmp_path / "out", source):
        pass


def test_inputs_that_changed_are_other_inputs(source: Source) -> None:
    before = key_of("copy", {}, [source])
    assert key_of("copy", {}, [source]) == before
    assert key_of("copy", {"x": 1}, [source]) != before
    (source.folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "x": 1}))
    assert key_of("copy", {}, [source]) != before
