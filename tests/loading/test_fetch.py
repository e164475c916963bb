"""Bytes that do not arrive, are wrong or find no room; each time the next download succeeds."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from llmctl.core.errors import (
    AccessError,
    BadFileError,
    DoesNotFitError,
    UnreachableError,
)
from llmctl.loading.hub.download import download
from tests.hub import Fault, Seen, StandInHub, tiny_safetensors
from tests.loading.downloads import (
    ID,
    NUM_BYTES,
    WEIGHTS,
    Recorder,
    assert_same,
    fails,
    get,
    unfinished_weights,
)

BUFFER_BYTES = io.DEFAULT_BUFFER_SIZE


def check_resumed(seen: Seen, *, cut_at: int) -> None:
    """The request goes on behind what came: a broken connection may lose what was still on its way."""
    assert seen.range is not None
    start = int(seen.range.removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= cut_at


def test_a_cut_is_resumed_within_one_download(hub: StandInHub) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000, times=1)
    progress = Recorder()
    assert_same(download(ID, progress=progress), hub.repo(ID).files)
    first, second = hub.gets(WEIGHTS)
    assert first.range is None
    check_resumed(second, cut_at=60_000)
    assert progress.num_bytes == progress.stages[1][1]


def test_what_a_failed_download_got_is_kept_and_the_next_one_goes_on(hub: StandInHub) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=150_000)
    error = fails(UnreachableError, hub.url, "is kept", "same command goes on")
    assert error.exit_code == 5
    del hub.repo(ID).faults[WEIGHTS]
    progress = Recorder()
    assert_same(download(ID, progress=progress), hub.repo(ID).files)
    served = hub.gets(WEIGHTS)
    check_resumed(served[-1], cut_at=150_000)
    assert progress.num_bytes == progress.stages[1][1]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_leaves_bytes_for_the_next(
    hub: StandInHub, home: Path, by: signal.Signals
) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(bytes_per_s=100_000)
    code = (
        "from llmctl.core.progress import SilentProgress as P;"
        "from llmctl.loading.hub.download import download;"
        f"download({ID!r}, progress=P())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | hub.environ(home), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 10
    while not (hub.gets(WEIGHTS) and hub.gets(WEIGHTS)[0].num_bytes > 2 * BUFFER_BYTES):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(by)
    process.wait(timeout=1)
    hub.repo(ID).faults.clear()
    assert_same(get(), hub.repo(ID).files)
    resumed = hub.gets(WEIGHTS)[-1].range
    assert resumed is not None
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) >= BUFFER_BYTES


def test_a_server_without_ranges_sends_the_file_again_and_the_total_stays_right(hub: StandInHub) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000)
    fails(UnreachableError, "is kept")
    hub.repo(ID).faults[WEIGHTS] = Fault(ignores_range=True)
    progress = Recorder()
    assert_same(download(ID, progress=progress), hub.repo(ID).files)
    assert progress.num_bytes == progress.stages[1][1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(hub: StandInHub, status: int) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(status=status, times=2)
    assert_same(get(), hub.repo(ID).files)


def test_a_busy_server_is_left_alone_as_long_as_it_asks(hub: StandInHub) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(status=429, times=1, retry_after_s=1)
    begin = time.monotonic()
    get()
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("name", [WEIGHTS, "api"])
@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_busy_is_unreachable(hub: StandInHub, name: str, status: int) -> None:
    hub.repo(ID).faults[name] = Fault(status=status)
    fails(UnreachableError, hub.url, str(status), "later")
    hub.repo(ID).faults.clear()
    assert_same(get(), hub.repo(ID).files)


@pytest.mark.parametrize("name", [WEIGHTS, "api"])
def test_a_silent_server_is_not_waited_for_for_ever(
    hub: StandInHub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.repo(ID).faults[name] = Fault(is_silent=True)
    begin = time.monotonic()
    fails(UnreachableError, "cannot reach", hub.url)
    assert time.monotonic() - begin < 5
    hub.repo(ID).faults.clear()
    assert_same(get(), hub.repo(ID).files)


def test_a_dead_server_is_unreachable(home: Path, hub: StandInHub) -> None:
    hub.close()
    fails(UnreachableError, "cannot reach the hub at", hub.url, "HF_ENDPOINT")


@pytest.mark.parametrize("endpoint", ["http://hub.invalid", "not-a-url", "http://[", "https://127.0.0.1:1"])
def test_a_wrong_endpoint_is_unreachable(home: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    fails(UnreachableError, endpoint, "HF_ENDPOINT")


@pytest.mark.parametrize(
    "answer", [b"<html>Please log in</html>", b"[]", b"{}", b'{"sha": "../..", "siblings": []}']
)
def test_a_server_that_is_no_hub_is_told_apart(hub: StandInHub, answer: bytes) -> None:
    hub.repo(ID).faults["api"] = Fault(body=answer)
    fails(UnreachableError, hub.url, "does not answer as a hub", "HF_ENDPOINT")


# Bytes that are wrong


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_wrong_bytes_are_thrown_away(hub: StandInHub, name: str) -> None:
    true = hub.repo(ID).files[name]
    assert isinstance(true, bytes)
    hub.repo(ID).faults[name] = Fault(body=bytes(len(true)))
    error = fails(BadFileError, name, "hash differs", "deleted")
    assert error.exit_code == 7
    hub.repo(ID).faults.clear()
    assert_same(get(), hub.repo(ID).files)


@pytest.mark.parametrize("declared", [NUM_BYTES * 3, NUM_BYTES // 3])
def test_a_size_that_is_not_the_listed_one_is_refused(hub: StandInHub, declared: int) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(declared_bytes=declared)
    fails(BadFileError, WEIGHTS, str(declared), str(len(tiny_safetensors(NUM_BYTES))))
    hub.repo(ID).faults.clear()
    assert_same(get(), hub.repo(ID).files)


def test_foreign_bytes_in_an_unfinished_file_are_found_out(hub: StandInHub, home: Path) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000)
    fails(UnreachableError)
    hub.repo(ID).faults.clear()
    part = unfinished_weights(home)
    part.write_bytes(b"\0" + part.read_bytes()[1:])
    fails(BadFileError, WEIGHTS, "hash differs")
    assert_same(get(), hub.repo(ID).files)


# Disk


def test_a_model_larger_than_the_disk_is_refused_before_it_is_fetched(hub: StandInHub, home: Path) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(declared_bytes=10**15)
    error = fails(DoesNotFitError, ID, "1000000.0 GB", "free", str(home), "HF_HOME")
    assert error.exit_code == 6
    assert not hub.gets("config.json")


def test_a_disk_that_fills_up_is_told_and_the_next_download_succeeds(hub: StandInHub, home: Path) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000)
    fails(UnreachableError)
    hub.repo(ID).faults.clear()
    part = unfinished_weights(home)
    part.unlink()
    part.symlink_to("/dev/full")
    error = fails(DoesNotFitError, "full", str(home), "HF_HOME")
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ENOSPC
    part.unlink()
    assert_same(get(), hub.repo(ID).files)


def test_a_cache_that_cannot_be_written_is_named(hub: StandInHub, home: Path) -> None:
    home.mkdir()
    (home / "hub").write_text("in the way")
    fails(AccessError, "cannot write", str(home / "hub"), "HF_HOME")


def test_a_file_system_without_links_gets_the_files_themselves(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: str) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = get()
    assert_same(folder, hub.repo(ID).files)
    assert not (folder / WEIGHTS).is_symlink()
    get()
    assert len(hub.gets(WEIGHTS)) == 1
