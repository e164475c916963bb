"""`llmctl bench engine`: its output for people and for programs, and what it refuses."""

import json
from pathlib import Path

import pytest

from llmctl.bench import engine as bench
from llmctl.bench.shapes import STACKS
from llmctl.cli import bench_engine
from llmctl.cli.app import run
from tests.conftest import Llmctl

QUICK = ("bench", "engine", "--seconds", "0", "--device", "cpu")
TINY = (*QUICK, "--shape", "demo", "--dtype", "bf16", "--batch", "2", "--prefill", "none", "--mix", "none")


def test_json_holds_one_object_for_each_figure_and_the_machine(llmctl: Llmctl) -> None:
    ended = llmctl(*TINY, "--against", "transformers", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found.keys() == {"rows", "setup"}
    decode, memory = found["rows"]
    assert (decode["what"], decode["batch"], decode["dtype"]) == ("decode", 2, "bf16")
    assert decode["ratio"] == pytest.approx(decode["ours"] / decode["theirs"], rel=0.01)
    assert (memory["what"], memory["unit"]) == ("memory", "bytes")
    assert found["setup"].keys() == {
        *("model", "device", "device_name", "threads", "llmctl", "torch", "transformers")
    }
    assert found["setup"]["model"] == "the shape of demo (comes with llmctl), random weights"
    told = ended.err.splitlines()
    assert "to measure: 1; about 1 min for half a billion weights" in told
    assert "decode of 2, bf16 (1 of 1)" in told


def test_text_says_what_was_measured_on_what(llmctl: Llmctl) -> None:
    ended = llmctl(*QUICK, "demo", "--dtype", "int8", "--batch", "1", "--prefill", "30", "--mix", "12:4")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == "demo"
    assert lines[1].startswith("cpu: ")
    assert lines[1].endswith(" threads")
    assert lines[2].startswith("llmctl ")
    assert lines[4].split() == ["what", "dtype", "batch", "tokens", "llmctl", "unit"]
    rows = [line.split() for line in lines[5:11]]
    assert [row[0] for row in rows] == ["decode", "prefill", "first", "prefill", "mix", "memory"]
    assert rows[0][3] == "115-179"
    assert rows[4][2:4] == ["1", "12:4"]
    assert lines[-1].startswith("mix, int8, 1: median time to the first token: ")
    assert max(map(len, lines)) <= 80
    assert "other work on this machine" in ended.err


def test_a_real_tokenizer_makes_text(llmctl: Llmctl, shared: Path) -> None:
    ended = llmctl("-q", *TINY, "--tokenizer", str(shared / "assets/tokenizers/smollm2"), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["rows"][0]["ours"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("demo", "--shape", "demo"), "MODEL and --shape do not go together (give one)"),
        (("demo", "--tokenizer", "."), "--tokenizer is for --shape"),
        (("--tokenizer", "no-such-folder"), "--tokenizer must be a folder with a tokenizer.json, not"),
        (("--shape", "gpt-9"), "--shape must be one of demo, qwen2-0.5b, "),
        (
            ("--dtype", "bf16,int3"),
            "--dtype must be of bf16, int8, int4, nf4, fp4 with commas between, not 'int3'",
        ),
        (("--dtype", ""), "--dtype must be of bf16"),
        (("--batch", "0"), "--batch must be numbers from 1 to 4096 with commas between, or none, not '0'"),
        (("--batch", "1,x"), "--batch must be numbers"),
        (("--batch", "5000"), "--batch must be numbers"),
        (("--prefill", "-1"), "--prefill must be numbers from 1 to 1000000"),
        (("--mix", "115"), "--mix must be IN:OUT such as 115:48"),
        (("--mix", "0:48"), "--mix must be IN:OUT"),
        (("--mix", "115:1"), "--mix must be IN:OUT such as 115:48, prompts from 1 and answers from 2 tokens"),
        (("--long", "forever"), "--long must be of waiting, context, generation with commas"),
        (("--against", "vllm"), "--against must be transformers, not 'vllm'"),
        (("--seconds", "-1"), "--seconds must be between 0 and 600, not -1.0"),
        (("--seconds", "nan"), "--seconds must be between 0 and 600, not nan"),
        (("--batch", "none", "--prefill", "none", "--mix", "none"), "nothing is left to measure"),
        (("--device", "xpu"), "device 'xpu' cannot be used here"),
        (("--shape", "demo", "--prefill", "2000"), "the shape of demo"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(llmctl: Llmctl, args: tuple[str, ...], message: str) -> None:
    ended = llmctl("-q", "bench", "engine", "--dtype", "bf16", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1


def test_a_model_that_is_not_there_is_told(llmctl: Llmctl) -> None:
    ended = llmctl("-q", *QUICK, "./no-such-model")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("error: no such folder: ./no-such-model")


def test_the_long_runs_are_those_that_there_are() -> None:
    assert tuple(bench.long_runs.RUNS) == bench_engine.LONG
    assert "qwen2-0.5b" in STACKS


@pytest.mark.parametrize(
    ("batches", "clients"), [((1, 4, 16, 32), 16), ((16,), 16), ((1, 4), 4), ((32,), 32), ((), 16)]
)
def test_the_mix_has_sixteen_clients_unless_other_batches_are_asked_for(
    batches: tuple[int, ...], clients: int
) -> None:
    flags = bench_engine.Flags(
        dtypes=("bf16",),
        batches=batches,
        prefills=(),
        mix=(115, 48),
        long=(),
        has_rival=False,
        seconds=0,
    )
    assert flags.num_clients == clients


def test_ctrl_c_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "best_rates", interrupted)
    assert run(["-q", *TINY]) == 130
    assert capfd.readouterr() == ("", "")
