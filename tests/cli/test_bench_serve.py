"""`llmctl bench serve`: its output for people and for programs, Ctrl-C, and what it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.bench.percentiles import Outcome, figures
from llmctl.cli.bench_serve_view import ratios
from tests.conftest import ROOT, Llmctl
from tests.server import Reply, ScriptedServer

QUICK = ("bench", "serve", "--concurrency", "2", "--requests", "4", "--mix", "5:3")
ANSWER = Reply(pieces=["a", " b", " c"], usage=(5, 3))
FIGURES = {"ttft", "tpot", "itl", "e2el"}


class AnsweringServer(ScriptedServer):
    """Gives the same answer always."""

    def _reply(self, seen: Any) -> Reply:
        return self._queued.popleft() if self._queued else ANSWER


def test_json_is_one_object_with_the_names_of_vllm(llmctl: Llmctl) -> None:
    with AnsweringServer() as server:
        ended = llmctl(*QUICK, "--url", server.url, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert (found["completed"], found["failed"], found["failures"]) == (4, 0, [])
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (20, 12)
    assert (found["max_concurrency"], found["request_rate"], found["num_prompts"]) == (2, None, 4)
    assert (found["model_id"], found["endpoint"], found["prompt_ids"]) == ("scripted", "completions", True)
    assert (found["input_len"], found["output_len"], found["interrupted"]) == (5, 3, False)
    assert found["output_throughput"] == pytest.approx(12 / found["duration"], rel=0.05)
    for what in ("mean", "median", "p90", "p99"):
        assert all(found[f"{what}_{name}_ms"] >= 0 for name in FIGURES)
    assert ended.err == f"{server.url}: scripted (/completions, token ids)\n"


def test_text_says_what_was_asked_and_what_came(llmctl: Llmctl) -> None:
    with AnsweringServer(ANSWER, ANSWER, Reply(status=503, body="full")) as server:
        ended = llmctl("-q", *QUICK, "--url", server.url)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "4 requests, 2 clients that come back; 5:3 tokens"
    assert lines[1] == f"{server.url}, scripted"
    assert lines[2].startswith("  3 answered in ")
    assert lines[2].endswith(" s, 1 failed, on average 5:3 tokens")
    assert lines[3] == "  1 x HTTP 503 (full)"
    assert [line.split(":")[0] for line in lines[5:7]] == ["output tokens/s", "requests/s"]
    assert lines[8].split() == ["mean", "p50", "p90", "p99"]
    assert [line.split(" ms")[0] for line in lines[9:]] == [
        *("first token", "inter-token", "per token", "end-to-end")
    ]
    assert max(map(len, lines)) <= 80


def test_an_open_loop_of_the_prompts_of_a_file(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    args = ("--rate", "200", "--requests", "3", "--prompts", str(tmp_path / "prompts.txt"))
    with AnsweringServer() as server:
        ended = llmctl("bench", "serve", "--url", server.url, *args, "--max-tokens", "3")
        assert sorted(seen.last_user_message for seen in server.asked) == ["one", "one", "two", "two"]
        assert {seen.body["max_tokens"] for seen in server.asked} == {3}
    assert ended.code == 0
    assert ended.out.startswith("3 requests, 200 a second; prompts of a file, answers of 3 tokens\n")
    assert "the same 2 prompts came again and again" in ended.err


def test_two_servers_get_the_same_load_and_are_compared(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k-other", encoding="utf-8")
    (tmp_path / "key").chmod(0o600)
    with AnsweringServer() as one, AnsweringServer(api_key="k-other") as other:
        args = (*QUICK, "--url", one.url, "--against", other.url, "--model", "m", "--against-model", "n")
        args = (*args, "--against-api-key-file", str(tmp_path / "key"))
        told = json.loads(llmctl(*args, "--json").out)
        shown = llmctl(*args).out.splitlines()
        assert {seen.body["model"] for seen in one.asked} == {"m"}
        assert {seen.body["model"] for seen in other.asked} == {"n"}
        assert all("authorization" not in seen.headers for seen in one.requests)
    assert (told["url"], told["against"]["url"]) == (one.url, other.url)
    expected = told["output_throughput"] / told["against"]["output_throughput"]
    assert told["ratios"]["output_throughput"] == pytest.approx(expected, rel=0.01)
    assert shown[6].split() == ["first", "second", "times"]
    assert shown[7].startswith("output tokens/s ")
    assert len(shown[7].split()) == 5


def test_a_ratio_says_how_many_times_as_good_the_first_is() -> None:
    quick = Outcome(planned=0.0, ended=1.0, times=(0.5, 1.0), num_output=2)
    slow = Outcome(planned=0.0, ended=2.0, times=(1.5, 2.0), num_output=2)
    found = ratios(figures([quick], duration=1.0), figures([slow], duration=2.0))
    assert (found["output_throughput"], found["median_ttft_ms"], found["p99_e2el_ms"]) == (2, 3, 2)
    assert ratios(figures([quick], duration=1.0), figures([], duration=1.0))["median_ttft_ms"] is None


def test_a_second_server_that_is_not_there_does_not_cost_the_figures_of_the_first(llmctl: Llmctl) -> None:
    with AnsweringServer() as server:
        ended = llmctl(*QUICK, "--url", server.url, "--against", "127.0.0.1:9", "--json")
    assert ended.code == 5
    assert json.loads(ended.out)["completed"] == 4
    assert json.loads(ended.err.splitlines()[-1])["error"]["code"] == "unreachable"


def test_a_load_of_which_nothing_succeeds_is_a_failure(llmctl: Llmctl) -> None:
    with AnsweringServer(ANSWER, *[Reply(status=503, body="full")] * 4) as server:
        ended = llmctl("-q", *QUICK, "--url", server.url, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["failures"] == [{"kind": "HTTP 503", "count": 4, "example": "full"}]
    assert "none of 4 requests" in json.loads(ended.err)["error"]["message"]


def test_ctrl_c_tells_what_was_measured_so_far() -> None:
    slow = Reply(pieces=["a", "b", "c"], silence_s=0.02)
    with AnsweringServer(*[slow] * 5000) as server:
        command = [sys.executable, "-m", "llmctl", "bench", "serve", "--url", server.url, "--json"]
        process = subprocess.Popen(
            [*command, "--requests", "5000", "--concurrency", "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while len(server.asked) < 10:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"]
    assert found["completed"] > 0
    assert found["unfinished"] <= 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no server is named (give its address: --url http://localhost:8000/v1)"),
        (("--url", "ftp://x"), "'ftp://x' is neither http nor https"),
        (("--url", "x", "--concurrency", "0"), "--concurrency must be from 1 to 10000, not 0"),
        (("--url", "x", "--rate", "0"), "--rate must be above 0 and at most 100000, not 0"),
        (("--url", "x", "--rate", "nan"), "--rate must be above 0 and at most 100000, not nan"),
        (("--url", "x", "--rate", "2", "--concurrency", "2"), "--concurrency and --rate do not go together"),
        (("--url", "x", "--requests", "0"), "--requests must be from 1 to 1000000, not 0"),
        (("--url", "x", "--mix", "115"), "--mix must be IN:OUT such as 115:48, each from 1 to 1000000"),
        (("--url", "x", "--mix", "0:5"), "--mix must be IN:OUT"),
        (("--url", "x", "--max-tokens", "5"), "--max-tokens is for --prompts (give --mix IN:OUT)"),
        (("--url", "x", "--prompts", "f", "--mix", "1:2"), "--mix is for random prompts"),
        (("--url", "x", "--prompts", "f", "--max-tokens", "0"), "--max-tokens must be from 1"),
        (("--url", "x", "--endpoint", "responses"), "--endpoint must be one of completions, chat, not"),
        (("--url", "x", "--against-model", "m"), "--against-model and --against-api-key-file are for"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(llmctl: Llmctl, args: tuple[str, ...], message: str) -> None:
    ended = llmctl("-q", "bench", "serve", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1


def test_a_file_of_messages_is_for_chat(llmctl: Llmctl, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}', encoding="utf-8")
    args = ("--url", "x", "--prompts", str(path), "--endpoint", "completions")
    ended = llmctl("-q", "bench", "serve", *args)
    assert (ended.code, ended.out) == (2, "")
    assert "holds messages, which are for chat" in ended.err
    assert llmctl("-q", "bench", "serve", "--url", "x", "--prompts", str(tmp_path / "no")).code == 3
