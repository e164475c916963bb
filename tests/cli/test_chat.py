"""`llmctl chat` answering once: where the prompt comes from, what goes to stdout, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Llmctl

QUESTION = "What is the capital of France?"
GREEDY = ("--temperature", "0")


def test_the_main_job_prints_one_line_and_nothing_else(llmctl_process: Llmctl) -> None:
    ended = llmctl_process("chat", "demo", "-p", QUESTION, *GREEDY)
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.endswith("\n")
    assert len(ended.out.splitlines()) == 1
    assert "Paris" in ended.out


def test_demo_is_the_model_when_none_is_named(llmctl: Llmctl) -> None:
    assert llmctl("chat", "-p", QUESTION).out == llmctl("chat", "demo", "-p", QUESTION).out


def test_a_folder_called_demo_does_not_hide_the_demo_model(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "Paris" in llmctl("chat", "-p", QUESTION).out


def test_the_prompt_may_come_through_a_pipe(llmctl: Llmctl) -> None:
    ended = llmctl("chat", *GREEDY, stdin=QUESTION.encode() + b"\n")
    assert (ended.code, ended.err) == (0, "")
    assert "Paris" in ended.out


def test_piped_text_comes_before_the_prompt(llmctl: Llmctl) -> None:
    piped = llmctl("chat", "-p", "is the capital of France?", *GREEDY, "--raw", "--json", stdin=b"What ")
    whole = llmctl("chat", "-p", QUESTION, *GREEDY, "--raw", "--json")
    assert json.loads(piped.out)["text"] == json.loads(whole.out)["text"]
    assert json.loads(piped.out)["usage"] == json.loads(whole.out)["usage"]


def test_a_file_is_the_prompt_and_dash_is_stdin(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text(QUESTION + "\n")
    from_file = llmctl("chat", "-f", str(tmp_path / "question.txt"), *GREEDY)
    from_stdin = llmctl("chat", "-f", "-", *GREEDY, stdin=QUESTION.encode() + b"\n")
    assert from_file.out == from_stdin.out == llmctl("chat", "-p", QUESTION, *GREEDY).out


def test_an_open_silent_pipe_is_not_waited_for(llmctl_process: Llmctl) -> None:
    reader, writer = os.pipe()
    try:
        ended = llmctl_process("chat", "-p", QUESTION, *GREEDY, stdin=reader)
    finally:
        os.close(writer)
        os.close(reader)
    assert ended.code == 0
    assert "Paris" in ended.out


def test_a_closed_stdin_is_no_trouble() -> None:
    script = f"exec {sys.executable} -m llmctl chat -p '{QUESTION}' <&-"
    ended = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Paris" in ended.stdout


def test_json_tells_text_reason_counts_and_times(llmctl: Llmctl) -> None:
    told = json.loads(llmctl("chat", "-p", QUESTION, *GREEDY, "--json").out)
    assert told["model"] == "demo"
    assert "Paris" in told["text"]
    assert told["finish_reason"] == "stop"
    usage = told["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < told["timings"]["first_token_s"] <= told["timings"]["total_s"]


def test_logprobs_come_with_json(llmctl: Llmctl) -> None:
    told = json.loads(llmctl("chat", "-p", QUESTION, *GREEDY, "--json", "--logprobs", "3").out)
    entries = told["logprobs"]
    assert len(entries) == told["usage"]["completion_tokens"]
    assert all(len(entry["top"]) == 3 and entry["top"][0]["logprob"] == entry["logprob"] for entry in entries)
    assert "".join(entry["token"] for entry in entries[:-1]).strip() == told["text"].strip()


def test_max_new_tokens_ends_an_answer_with_length(llmctl: Llmctl) -> None:
    told = json.loads(llmctl("chat", "-p", "Tell me a story.", "--json", "--max-new-tokens", "5").out)
    assert (told["finish_reason"], told["usage"]["completion_tokens"]) == ("length", 5)


def test_a_stop_string_is_never_shown(llmctl: Llmctl) -> None:
    whole = llmctl("chat", "-p", QUESTION, *GREEDY).out
    told = json.loads(llmctl("chat", "-p", QUESTION, *GREEDY, "--json", "--stop", "Paris").out)
    assert told["finish_reason"] == "stop"
    assert told["text"] == whole[: whole.index("Paris")]


def test_a_seed_repeats_an_answer(llmctl: Llmctl) -> None:
    hot = ("chat", "-p", "Tell me a story.", "--temperature", "1.5", "--seed")
    first, again, other = (llmctl(*hot, seed).out for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


def test_system_and_messages_reach_the_model(llmctl: Llmctl, tmp_path: Path) -> None:
    plain = json.loads(llmctl("chat", "-p", QUESTION, "--json").out)["usage"]["prompt_tokens"]
    systematic = json.loads(llmctl("chat", "-p", QUESTION, "-s", "Be brief.", "--json").out)
    assert systematic["usage"]["prompt_tokens"] > plain
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    (tmp_path / "m.json").write_text(json.dumps({"messages": messages}))
    assert (
        json.loads(llmctl("chat", "--messages", str(tmp_path / "m.json"), "--json").out)["usage"]
        == (systematic["usage"])
    )


def test_fastchats_flag_names_are_understood(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    old = (
        "--model-path",
        "demo",
        "--conv-system-msg",
        "Be brief.",
        "--conv-template",
        str(tmp_path / "t.jinja"),
    )
    new = ("demo", "--system", "Be brief.", "--template", str(tmp_path / "t.jinja"))
    old_told, new_told = (
        json.loads(llmctl("chat", *flags, "-p", "Hi", "--json").out) for flags in (old, new)
    )
    assert (old_told["text"], old_told["usage"]) == (new_told["text"], new_told["usage"])


def test_extract_prints_the_last_code_block_only(llmctl: Llmctl, tmp_path: Path) -> None:
    block = "Repeat exactly: "
    ended = llmctl("chat", "-x", "-p", f"{block}hello there")
    assert (ended.code, ended.out) == (1, "")
    assert "the answer has no code block" in ended.err


def test_a_setting_of_the_environment_holds_until_a_flag(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_MAX_NEW_TOKENS", "2")
    told = json.loads(llmctl("chat", "-p", "Tell me a story.", "--json").out)
    assert told["usage"]["completion_tokens"] == 2
    told = json.loads(llmctl("chat", "-p", "Tell me a story.", "--json", "--max-new-tokens", "3").out)
    assert told["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--temperature", "-1", "-p", "x"), ["--temperature", "-1", "at least 0"]),
        (("--top-p", "0", "-p", "x"), ["--top-p", "more than 0"]),
        (("--temperature", "hot", "-p", "x"), ["--temperature", "hot"]),
        (("--seed", "-3", "-p", "x"), ["--seed", "-3"]),
        (("--dtype", "int8", "-p", "x"), ["--dtype", "int8", "bfloat16"]),
        (("--device", "tpu", "-p", "x"), ["--device", "tpu", "cuda"]),
        (("--device", "cuda", "-p", "x"), ["cuda", "cpu"]),
        (("--style", "fancy", "-p", "x"), ["--style", "fancy", "programmatic"]),
        (("--style", "programmatic", "-p", "x"), ["--style programmatic", "stdin"]),
        (("-x", "--json", "-p", "x"), ["-x", "--json"]),
        (("--raw", "-s", "x", "-p", "x"), ["--raw", "--system"]),
        (("--logprobs", "2", "-p", "x"), ["--logprobs", "--json"]),
        (("--logprobs", "21", "--json", "-p", "x"), ["logprobs", "20", "21"]),
        (("--load-3bit", "-p", "x"), ["--load-3bit"]),
        (("demo", "--model-path", "other", "-p", "x"), ["MODEL", "--model-path", "other"]),
        (("demo", "--revision", "main", "-p", "x"), ["--revision", "main"]),
        (("-f", "-", "--messages", "-"), ["stdin", "once"]),
        (("-p", "   "), ["prompt is empty"]),
        ((), ["stdin is empty", "-p"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    llmctl: Llmctl, args: tuple[str, ...], words: list[str]
) -> None:
    ended = llmctl("chat", *args)
    assert (ended.code, ended.out) == (2, "")
    text = ended.err if not ended.err.startswith("{") else json.loads(ended.err)["error"]["message"]
    assert len(ended.err.splitlines()) == 1
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", ["not JSON"]),
        ("[]", ["at least one message"]),
        ('[{"role": "user"}]', ["message 0", "content"]),
        ('[{"role": "owner", "content": "x"}]', ["message 0", "owner"]),
        ('[{"role": "user", "content": 5}]', ["message 0", "text"]),
        ('[{"role": "user", "content": "x", "name": "y"}]', ["name", "not supported"]),
        ('[{"role": "assistant", "content": "x"}]', ["assistant", "nothing to answer"]),
    ],
)
def test_a_bad_messages_file_is_refused(
    llmctl: Llmctl, tmp_path: Path, content: str, words: list[str]
) -> None:
    (tmp_path / "m.json").write_text(content)
    ended = llmctl("chat", "--messages", str(tmp_path / "m.json"))
    assert ended.code in (2, 7)
    assert len(ended.err.splitlines()) == 1
    assert all(word in ended.err for word in words), ended.err


def test_files_that_cannot_be_read_are_named(llmctl: Llmctl, tmp_path: Path) -> None:
    assert llmctl("chat", "-f", "/no/such/file").code == 3
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    ended = llmctl("chat", "-f", str(tmp_path / "binary"))
    assert ended.code == 7
    assert "not UTF-8" in ended.err


def test_a_prompt_longer_than_the_context_is_refused(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p", "word " * 5000)
    assert (ended.code, ended.out) == (6, "")
    assert "context" in ended.err


def test_flags_that_do_nothing_for_a_greedy_model_are_told(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p", QUESTION, "--top-p", "0.5", "--seed", "1")
    assert ended.code == 0
    assert ended.err.startswith("--top-p, --seed: no effect at temperature 0 (the model's own)")
    assert llmctl("chat", "-p", QUESTION, "--top-p", "0.5", "--temperature", "0.1").err == ""


def test_half_a_character_is_refused(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p", "caf\udce9")
    assert (ended.code, ended.out) == (2, "")
    assert "not valid Unicode" in ended.err


def test_a_stop_token_outside_the_vocabulary_is_refused(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p", QUESTION, "--stop-token-id", "999999")
    assert (ended.code, ended.out) == (2, "")
    assert "999999" in ended.err


def test_a_system_setting_gives_way_to_the_messages_file(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    (tmp_path / "m.json").write_text(json.dumps(messages))
    plain = llmctl("chat", "--messages", str(tmp_path / "m.json")).out
    monkeypatch.setenv("LLMCTL_SYSTEM", "You are a pirate.")
    monkeypatch.setenv("LLMCTL_LOGPROBS", "2")
    assert llmctl("chat", "--messages", str(tmp_path / "m.json")).out == plain
    ended = llmctl("chat", "--messages", str(tmp_path / "m.json"), "-s", "x")
    assert (ended.code, "--system" in ended.err) == (2, True)


def test_a_wrong_template_is_found_before_the_model_is_loaded(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "no/such-model", "-p", "x", "--template", "/no/such.jinja")
    assert (ended.code, "/no/such.jinja" in ended.err) == (3, True)


def test_an_answer_longer_than_the_context_is_told_to_be_impossible(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "-p", QUESTION, "--max-new-tokens", "99999")
    assert ended.code == 0
    assert "--max-new-tokens 99999: the context of demo" in ended.err
