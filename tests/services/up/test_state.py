"""What is noted of fleets, and who is taken for whom."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.core.errors import AmbiguousError, NotFoundError, UsageError
from llmctl.core.places import Places
from llmctl.services.up import state as notes
from llmctl.services.up.state import Fleets, FleetState, PartState, Running


@pytest.fixture
def fleets() -> Fleets:
    return Fleets(Places.from_environ(os.environ))


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def me() -> Running:
    found = Running.of(os.getpid())
    assert found is not None
    return found


def noted(fleets: Fleets, port: int = 8000, *, supervisor: Running | None = None) -> FleetState:
    folder = fleets.new_folder(port)
    state = FleetState(
        folder=str(folder),
        host="127.0.0.1",
        port=port,
        supervisor=supervisor or me(),
        url=f"http://127.0.0.1:{port}/v1",
        models=("demo",),
        parts=(PartState(name="gateway", kind="gateway", process=me()), PartState(name="w", kind="worker")),
    )
    notes.write(state)
    return state


def test_a_fleet_is_read_as_it_was_written(fleets: Fleets) -> None:
    state = noted(fleets)
    assert fleets.running() == [state]
    assert [part.is_alive for part in state.parts] == [True, False]


def test_a_token_is_for_its_owner_only_and_no_two_are_the_same(fleets: Fleets) -> None:
    files = [fleets.new_folder(1) / notes.TOKEN for _ in range(2)]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 2
    assert [stat.S_IMODE(file.parent.stat().st_mode) for file in files] == [0o700] * 2
    tokens = {file.read_text(encoding="ascii") for file in files}
    assert len(tokens) == 2
    assert all(len(token.strip()) >= 40 for token in tokens)


def test_a_number_that_another_process_has_now_is_not_the_fleet(
    fleets: Fleets, sleeper: "subprocess.Popen[bytes]"
) -> None:
    real = Running.of(sleeper.pid)
    assert real is not None
    reused = replace(real, started=real.started - 100)
    state = noted(fleets, supervisor=reused)
    reused.signal(9)
    assert not reused.is_alive
    assert real.is_alive
    assert fleets.running() == []
    assert not state.token_file.exists()
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', '{"supervisor": 3, "parts": []}'])
def test_a_note_that_cannot_be_understood_hides_no_other_and_keeps_its_token(
    fleets: Fleets, text: str
) -> None:
    folder = fleets.new_folder(8000)
    (folder / notes.STATE).write_text(text, encoding="utf-8")
    old = time.time() - 3600
    os.utime(folder, (old, old))
    good = noted(fleets)
    assert [state.folder for state in fleets.running()] == [good.folder]
    # Its fleet may live.
    assert (folder / notes.TOKEN).exists()


def test_a_folder_that_never_had_a_note_is_cleaned_away_when_it_is_old(fleets: Fleets) -> None:
    folder = fleets.new_folder(8000)
    assert fleets.running() == []
    assert (folder / notes.TOKEN).exists()
    old = time.time() - 3600
    os.utime(folder, (old, old))
    assert fleets.running() == []
    assert not (folder / notes.TOKEN).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"supervisor": {"pid": -1, "started": 1.0}},
        {"supervisor": {"pid": "1", "started": 1.0}},
        {"supervisor": {"pid": 1, "started": "a"}},
        {"models": [1]},
        {"url": 5},
        {"drain_s": "x"},
        {
            "parts": [
                {"name": "worker-1", "kind": "worker", "url": None, "process": {"pid": -1, "started": 1}}
            ]
        },
    ],
)
def test_a_note_with_a_wrong_value_is_no_note(fleets: Fleets, change: dict[str, object]) -> None:
    state = noted(fleets)
    path = Path(state.folder) / notes.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}), encoding="utf-8")
    assert notes.read(Path(state.folder)) is None
    path.write_text("[" * 100_000, encoding="utf-8")
    assert notes.read(Path(state.folder)) is None


def test_the_logs_of_a_few_fleets_that_have_ended_are_kept(fleets: Fleets) -> None:
    folders = []
    for age in range(8):
        folders.append(Path(noted(fleets).folder))
        notes.forget(folders[-1])
        os.utime(folders[-1], (1e9 - age, 1e9 - age))
    living = Path(noted(fleets).folder)
    fleets.running()
    assert [folder.exists() for folder in folders] == [True] * 5 + [False] * 3
    assert living.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_second_fleet_at_the_same_port_is_refused_and_told_who_has_it(fleets: Fleets, host: str) -> None:
    noted(fleets)
    with pytest.raises(UsageError, match=f"serves demo .process {os.getpid()}") as caught:
        fleets.refuse_second(host, 8000)
    assert "llmctl serve stop 8000" in str(caught.value.hint)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 8001), ("127.0.0.1", 0), ("192.0.2.1", 8000)])
def test_a_fleet_at_another_address_is_in_nobodys_way(fleets: Fleets, host: str, port: int) -> None:
    noted(fleets)
    fleets.refuse_second(host, port)


def test_the_only_fleet_needs_no_name(fleets: Fleets) -> None:
    state = noted(fleets)
    names = (None, "8000", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000")
    assert [notes.chosen(fleets.running(), name) for name in names] == [state] * 4


def test_of_several_fleets_one_must_be_named(fleets: Fleets) -> None:
    noted(fleets, 8000)
    other = noted(fleets, 8001)
    with pytest.raises(AmbiguousError, match=r"8000/v1, http://127\.0\.0\.1:8001/v1"):
        notes.chosen(fleets.running(), None)
    assert notes.chosen(fleets.running(), "8001") == other
    with pytest.raises(NotFoundError, match="no fleet is called 9"):
        notes.chosen(fleets.running(), "9")


@pytest.mark.parametrize("name", [None, "8000"])
def test_without_a_fleet_there_is_none_to_name(fleets: Fleets, name: str | None) -> None:
    with pytest.raises(NotFoundError, match="no fleet runs"):
        notes.chosen(fleets.running(), name)


def test_a_fleet_that_does_not_listen_is_killed(fleets: Fleets, tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        state = noted(fleets, supervisor=Running.of(process.pid))
        assert not notes.end(state, wait_s=0.3)
        assert process.wait(10) == -9
    assert not state.token_file.exists()


def test_a_fleet_that_ends_when_told_to_is_not_killed(
    fleets: Fleets, sleeper: "subprocess.Popen[bytes]"
) -> None:
    state = noted(fleets, supervisor=Running.of(sleeper.pid))
    assert notes.end(state, wait_s=20)
    assert sleeper.wait(10) == -15
