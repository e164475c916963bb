"""`llmctl bench layers`: its output for people and for programs, and what it refuses."""

import json

import pytest

from llmctl.bench.shapes import SHAPES
from llmctl.cli import bench
from llmctl.cli.app import run
from tests.conftest import Llmctl

QUICK = ("bench", "layers", "--shape", "demo", "--seconds", "0.001", "--device", "cpu")


def test_json_holds_one_object_for_each_figure(llmctl: Llmctl) -> None:
    ended = llmctl(*QUICK, "--rows", "1,2", "--method", "int8", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found.keys() == {"rows"}
    assert all(
        list(each) == ["method", "layer", "rows", "device", "ours_us", "bf16_us"] for each in found["rows"]
    )
    assert [(each["layer"], each["rows"]) for each in found["rows"]] == [
        (layer, rows) for rows in (1, 2) for layer in (*SHAPES["demo"].layers, "block")
    ]
    assert {(each["method"], each["device"]) for each in found["rows"]} == {("int8", "cpu")}


def test_text_says_what_was_measured_on_what(llmctl: Llmctl) -> None:
    ended = llmctl(*QUICK, "--rows", "4", "--method", "int8,nf4")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == "one block of demo (comes with llmctl): 0.6 million weights in 7 layers"
    assert lines[1].startswith("cpu (")
    assert " thread" in lines[1]
    heading = next(line for line in lines if line.startswith("layer"))
    assert heading.split()[:2] == ["layer", "rows"]
    assert heading.split()[3:] == ["us", "int8", "us", "times", "nf4", "us", "times"]
    rows = [line.split() for line in lines[lines.index(heading) + 1 :]]
    assert [row[0] for row in rows] == [*SHAPES["demo"].layers, "block"]
    assert all(len(row) == 7 and row[1] == "4" for row in rows)
    announced, explained = ended.err.splitlines()
    assert announced.startswith("measuring int8, nf4 against dense layers (rows 4) takes at least 1 s; ")
    assert "other work on this machine" in explained


def test_a_ratio_is_of_the_figures_beside_it(llmctl: Llmctl) -> None:
    ended = llmctl(*QUICK, "--rows", "64", "--method", "int8")
    dense, ours, ratio = ended.out.splitlines()[-1].split()[2:]
    assert float(ratio) == pytest.approx(float(dense) / float(ours), rel=0.1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--shape", "gpt-9"), "--shape must be one of demo, qwen2-0.5b, "),
        (("--rows", "1,x"), "--rows must be numbers from 1 to 65536 with commas between, not '1,x'"),
        (("--rows", "0"), "--rows must be numbers from 1 to 65536"),
        (("--rows", ""), "--rows must be numbers from 1 to 65536"),
        (("--rows", "65537"), "--rows must be numbers from 1 to 65536"),
        (
            ("--method", "int8,int3"),
            "--method must be of int8, int4, nf4, fp4 with commas between, not 'int3'",
        ),
        (("--method", ""), "--method must be of int8"),
        (("--seconds", "-1"), "--seconds must be above 0 and at most 600, not -1.0"),
        (("--seconds", "0"), "--seconds must be above 0 and at most 600, not 0.0"),
        (("--seconds", "nan"), "--seconds must be above 0 and at most 600, not nan"),
        (("--device", "xpu"), "device 'xpu' cannot be used here"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(llmctl: Llmctl, args: tuple[str, ...], message: str) -> None:
    ended = llmctl("bench", "layers", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1


def test_repetitions_are_measured_once() -> None:
    assert bench._rows("4, 1,4") == (4, 1)
    assert bench._methods("nf4,int8,nf4") == ("nf4", "int8")


def test_ctrl_c_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from llmctl.bench import layers

    def interrupted(*_: object, **__: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(layers, "best_times", interrupted)
    assert run([*QUICK, "-q", "--rows", "1", "--method", "int8"]) == 130
    assert capfd.readouterr() == ("", "")


def test_what_does_not_fit_is_told(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmctl.loading.planning import hardware

    monkeypatch.setattr(hardware, "free_memory", lambda: 10**6)
    ended = llmctl(*QUICK, "--rows", "1", "--method", "int8")
    assert (ended.code, ended.out) == (6, "")
    assert "take a smaller --shape" in ended.err
