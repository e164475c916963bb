"""What goes when a model is removed, and what stays whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmctl.core.errors import AmbiguousError, LlmctlError, NotFoundError, UsageError
from llmctl.loading.hub.removal import plan_removal, remove

NAME = "owner/tiny"
A, B = "a" * 40, "b" * 40


def cached(root: Path, snapshots: dict[str, dict[str, str]], refs: dict[str, str] | None = None) -> Path:
    """A repository in the hub's cache: by commit and file its blob, which holds its own name 10 times."""
    repository = root / "models--owner--tiny"
    (repository / "blobs").mkdir(parents=True)
    for commit, files in snapshots.items():
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        for name, blob in files.items():
            (repository / "blobs" / blob).write_text(blob * 10)
            (folder / name).symlink_to(f"../../blobs/{blob}")
    for name, commit in (refs or {}).items():
        (repository / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    return repository


def take(repository: Path, model: str = NAME, revision: str | None = None) -> int:
    planned = plan_removal(model, repository, revision=revision)
    remove(planned, repository.parent / ".locks" / repository.name)
    return planned.num_bytes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_of_a_model_goes_with_what_is_unfinished(tmp_path: Path) -> None:
    repository = cached(tmp_path, {A: {"config.json": "x"}, B: {"config.json": "y"}}, {"main": A})
    (repository / "blobs" / "z.incomplete").write_bytes(b"z" * 70)
    (tmp_path / "models--owner--other").mkdir()
    assert take(repository) == 10 + 10 + 40 + 70
    assert names(tmp_path) == ["models--owner--other"]


def test_an_unfinished_download_alone_goes_too(tmp_path: Path) -> None:
    repository = cached(tmp_path, {})
    (repository / "blobs" / "z.incomplete").write_bytes(b"z" * 70)
    assert take(repository) == 70
    assert names(tmp_path) == []


@pytest.mark.parametrize("revision", ["v1", B, B[:7], "refs/pr/1"])
def test_one_revision_goes_without_the_blobs_that_another_one_uses(tmp_path: Path, revision: str) -> None:
    shared = {"tokenizer.json": "s"}
    repository = cached(
        tmp_path,
        {A: {"config.json": "x", **shared}, B: {"config.json": "y", **shared}},
        {"main": A, "v1": B, "refs/pr/1": B},
    )
    take(repository, revision=revision)
    assert names(repository / "blobs") == ["s", "x"]
    assert names(repository / "snapshots") == [A]
    assert sorted(path.read_text() for path in (repository / "refs").rglob("*") if path.is_file()) == [A]
    assert (repository / "snapshots" / A / "tokenizer.json").read_text() == "s" * 10


def test_the_last_revision_takes_the_rest_with_it(tmp_path: Path) -> None:
    take(cached(tmp_path, {A: {"config.json": "x"}}, {"main": A}), revision="main")
    assert names(tmp_path) == []


@pytest.mark.parametrize("revision", ["v9", "abc", "0" * 40, "", "../refs/main"])
def test_a_revision_that_is_not_here_is_told_with_those_that_are(tmp_path: Path, revision: str) -> None:
    repository = cached(tmp_path, {A: {"config.json": "x"}}, {"main": A})
    with pytest.raises(NotFoundError, match="has no revision") as caught:
        take(repository, revision=revision)
    assert f"main, {A}" in (caught.value.hint or "")
    assert names(repository / "blobs") == ["x"]


def test_one_gguf_file_goes_and_the_others_stay(tmp_path: Path) -> None:
    files = {"m-Q4_K_M.gguf": "q4", "m-Q8_0.gguf": "q8"}
    repository = cached(tmp_path, {A: files, B: {"m-Q4_K_M.gguf": "old"}}, {"main": A})
    assert take(repository, f"{NAME}:q4_k_m") == 20 + 30
    assert names(repository / "blobs") == ["q8"]
    assert names(repository / "snapshots") == [A]
    assert (repository / "refs" / "main").read_text() == A
    take(repository, f"{NAME}/m-Q8_0.gguf")
    assert names(tmp_path) == []


def test_a_tag_of_two_files_is_ambiguous(tmp_path: Path) -> None:
    repository = cached(tmp_path, {A: {"a-Q8_0.gguf": "x", "b-Q8_0.gguf": "y"}})
    with pytest.raises(AmbiguousError, match=r"a-Q8_0\.gguf, b-Q8_0\.gguf"):
        take(repository, f"{NAME}:Q8_0")


# Nothing outside of the cache


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


def test_a_repository_that_is_a_link_is_refused(tmp_path: Path, outside: Path) -> None:
    repository = tmp_path / "models--owner--tiny"
    repository.symlink_to(outside)
    with pytest.raises(UsageError, match="is a link to") as caught:
        take(repository)
    assert "by hand" in (caught.value.hint or "")
    assert names(outside) == ["mine.txt"]


@pytest.mark.parametrize("place", ["blobs/x", "snapshots/l", "refs/l", "l", f"snapshots/{A}/l"])
@pytest.mark.parametrize("target", ["outside", "outside/mine.txt"])
@pytest.mark.parametrize("revision", [None, "main"])
def test_links_out_of_the_cache_are_never_followed(
    tmp_path: Path, outside: Path, place: str, target: str, revision: str | None
) -> None:
    repository = cached(
        tmp_path / "hub", {A: {"config.json": "x"}, B: {"config.json": "y"}}, {"main": A, "dev": B}
    )
    path = repository / place
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / target)
    take(repository, revision=revision)
    assert (outside / "mine.txt").read_text() == "mine"
    assert repository.exists() is (revision is not None)


@pytest.mark.parametrize("folder", ["blobs", "snapshots", "refs"])
def test_a_part_of_the_repository_that_lies_elsewhere_stays_there(
    tmp_path: Path, outside: Path, folder: str
) -> None:
    repository = cached(tmp_path / "hub", {A: {"config.json": "x"}}, {"main": A})
    (repository / folder).rename(outside / folder)
    (repository / folder).symlink_to(outside / folder)
    before = sorted(outside.rglob("*"))
    take(repository)
    assert not repository.exists()
    assert sorted(outside.rglob("*")) == before


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    snapshots=st.dictionaries(
        st.sampled_from(["a" * 40, "b" * 40, "c" * 40]),
        st.dictionaries(st.sampled_from("fgh"), st.sampled_from("uvwx"), min_size=1),
        min_size=2,
    ),
    data=st.data(),
)
def test_whatever_is_shared_every_other_revision_stays_whole_and_the_bytes_are_told_right(
    tmp_path_factory: pytest.TempPathFactory, snapshots: dict[str, dict[str, str]], data: st.DataObject
) -> None:
    repository = cached(tmp_path_factory.mktemp("hub"), snapshots)
    gone = data.draw(st.sampled_from(sorted(snapshots)))
    before = sum(path.lstat().st_size for path in (repository / "blobs").iterdir())
    freed = take(repository, revision=gone)
    assert before - freed == sum(path.lstat().st_size for path in (repository / "blobs").iterdir())
    del snapshots[gone]
    found = {
        commit.name: {path.name: path.read_text()[0] for path in commit.iterdir()}
        for commit in (repository / "snapshots").iterdir()
    }
    assert found == snapshots
    assert set(names(repository / "blobs")) == {
        blob for files in snapshots.values() for blob in files.values()
    }


# Others at work


@pytest.mark.parametrize("revision", [None, "dev"])
def test_what_another_process_is_downloading_is_left_alone(tmp_path: Path, revision: str | None) -> None:
    repository = cached(tmp_path, {A: {"config.json": "x"}, B: {"config.json": "y"}}, {"main": A, "dev": B})
    locks = tmp_path / ".locks" / repository.name
    locks.mkdir(parents=True)
    for name in ("x", "y"):
        (locks / f"{name}.lock").touch()
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(locks / "y.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LlmctlError, match="another process is just downloading") as caught:
        take(repository, revision=revision)
    assert caught.value.exit_code == 1
    assert names(repository / "blobs") == ["x", "y"]
    holder.communicate(b"")
    take(repository, revision=revision)
    assert repository.exists() is (revision is not None)
