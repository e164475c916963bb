"""`llmctl compress`: a table in the end, one line when it cannot be, and JSON for programs."""

import json
from pathlib import Path

import pytest

from tests.conftest import Llmctl


def test_a_table_tells_what_was_gained_and_lost(llmctl: Llmctl, tmp_path: Path) -> None:
    target = tmp_path / "out"
    ended = llmctl("compress", "demo", "--method", "int8", "--out", str(target))
    assert ended.code == 0, ended.err
    rows = [line.split("  ")[0].strip() for line in ended.out.splitlines()]
    assert rows[1:7] == [
        "weights",
        "time",
        "perplexity",
        "largest logit change",
        "KL divergence",
        "greedy agreement",
    ]
    assert "21 weights compressed, 2 modules left as they are" in ended.out
    assert f"written to {target}, with " in ended.out
    assert (target / "model.safetensors").is_file()


def test_programs_get_json(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl(
        "compress", "demo", "--method", "nf4", "--out", str(tmp_path / "out"), "--no-eval", "--json"
    )
    told = json.loads(ended.out)
    assert told["method"] == "nf4"
    assert told["bytes_after"] < told["bytes_before"]
    assert told["evaluation"] is None
    assert "--no-eval" in told["not_evaluated"]
    assert told["dry_run"] is False


def test_a_dry_run_writes_nothing(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("compress", "demo", "--method", "int4", "--out", str(tmp_path / "out"), "--dry-run")
    assert ended.code == 0
    assert "would be written to" in ended.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--method", "int3"], 2, "--method must be one of int8"),
        (["--method", "int4", "--group-size", "7"], 2, "--group-size must be one of 32, 64, 128, not 7"),
        (["--method", "int4", "--max-shard-size", "huge"], 2, "--max-shard-size must be a size"),
        (["--method", "int4", "--calibration", "absent.txt"], 3, "--calibration: no such file: absent.txt"),
        ([], 2, "--method"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    llmctl: Llmctl, tmp_path: Path, flags: list[str], code: int, said: str
) -> None:
    ended = llmctl("compress", "demo", "--out", str(tmp_path / "out"), *flags)
    assert ended.code == code
    assert said in ended.err
    assert not list(tmp_path.glob("out*"))
