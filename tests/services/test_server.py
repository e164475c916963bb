"""The test servers themselves, where the tests of the client do not show what they do."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmctl.core.errors import UnreachableError
from tests.conftest import ROOT
from tests.server import Reply, ScriptedServer
from tests.services.answers import ask, chat, collected, run, text


def test_a_part_of_the_last_message_chooses_the_reply() -> None:
    with ScriptedServer(Reply(pieces=["queued"]), by_message={"hello": Reply(pieces=["script"])}) as server:
        answers = [text(ask(server, request=chat(said))) for said in ("hello", "oh hello", "some  thing ")]
    assert answers == ["queued", "script", "some  thing "]
    assert [seen.last_user_message for seen in server.asked] == ["hello", "oh hello", "some  thing "]


def test_a_server_that_is_stopped_refuses_connections() -> None:
    with ScriptedServer() as server:
        server.stop()
        with pytest.raises(UnreachableError, match="nothing listens there"):
            ask(server)


def test_a_server_may_run_in_a_process_of_its_own(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "tests.server", "--port-file", str(port_file)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while not port_file.exists() and process.poll() is None:
                time.sleep(0.01)
            url = f"127.0.0.1:{port_file.read_text(encoding='utf-8')}"
            deltas = run(lambda backend: collected(backend, chat("word by word")), url)
        finally:
            process.terminate()
    assert text(deltas) == "word by word"
