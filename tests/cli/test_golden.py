"""A real trained model says, byte for byte, what the original C program says with the same weights."""

import json
from pathlib import Path

from transformers import AutoTokenizer

from tests.conftest import Llmctl


def test_stories260k_tells_the_golden_stories(llmctl: Llmctl, shared: Path) -> None:
    folder = shared / "assets" / "stories260K"
    cases = json.loads((shared / "assets" / "golden" / "stories260K.run_c.json").read_text())["cases"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = []
    for case in cases:
        prompt_ids = tokenizer.encode(case["prompt"], add_special_tokens=False)
        # The program counts its steps from BOS, and its last step still prints a token.
        count = case["steps"] - len(prompt_ids)
        lines.append({"prompt": case["prompt"], "raw": True, "temperature": 0, "max_new_tokens": count})
    ended = llmctl(
        "chat",
        str(folder),
        "--style",
        "programmatic",
        stdin="\n".join(json.dumps(line) for line in lines).encode(),
    )
    assert (ended.code, ended.err) == (0, "")
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert len(told) == len(cases) == 20
    assert [case["prompt"] + answer["text"] for case, answer in zip(cases, told, strict=True)] == [
        case["text"] for case in cases
    ]
