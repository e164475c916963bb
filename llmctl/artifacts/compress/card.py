"""What a compressed checkpoint says of itself: the model card for people, the provenance for programs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmctl import __version__
from llmctl.artifacts.compress.methods import METHODS
from llmctl.artifacts.compress.places import kinds_of
from llmctl.artifacts.compress.request import Compressed
from llmctl.core.sizes import shown

PROVENANCE = "llmctl_compress.json"
CARD = "README.md"
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_OWN = re.compile(r"^(?:base_model|base_model_relation|quantized_by):.*\n?(?:^[ \t-].*\n?)*", re.MULTILINE)
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the weights are from."""

    name: str
    commit: str | None
    """Of the hub; None for folders."""
    card: str
    """The text of its README; empty without one."""
    files: Mapping[str, int]
    """Its weight files, and their bytes."""
    calibration: Mapping[str, str] | None = None
    """Name and SHA-256 of the text."""


def table(result: Compressed) -> list[tuple[str, str, str]]:
    """What was measured, before and after, in words; the heading is not among it."""
    share = result.bytes_after / max(result.bytes_before, 1)
    rows = [("weights", shown(result.bytes_before), f"{shown(result.bytes_after)} ({share:.0%})")]
    if result.seconds is not None:
        rows.append(("time", "", f"{result.seconds:.1f} s"))
    found = result.evaluation
    if found is not None:
        agreed = f"{found['greedy_agreement']} of {found['greedy_tokens']} tokens"
        rows += [
            ("perplexity", f"{found['perplexity_before']:.3f}", f"{found['perplexity_after']:.3f}"),
            ("largest logit change", "", f"{found['largest_logit_change']:.3f}"),
            ("KL divergence", "", f"{found['kl_divergence']:.5f}"),
            ("greedy agreement", "", agreed),
        ]
    return rows


def card_of(result: Compressed, origin: Origin) -> str:
    """The text of README.md: what was done, what it cost, and the card that the model had."""
    groups = f", groups of {result.group_size}" if result.group_size is not None else ""
    lines = [
        f"# {origin.name}, compressed",
        "",
        f"{origin.name}{f' at commit {origin.commit}' if origin.commit else ''}, its layers stored as "
        f"{METHODS[result.method].title}{groups}, by llmctl {__version__}.",
        "",
        "| | before | after |",
        "|---|---|---|",
        *(f"| {name} | {before} | {after} |" for name, before, after in table(result)),
        "",
        *_about_evaluation(result),
        *(line for notice in result.notices for line in (f"{notice}.", "")),
        f"{result.num_compressed} weights are compressed. These stay as they were:",
        "",
        *_about_dense(result),
    ]
    front, body = _parted(origin.card)
    fields = front.splitlines()
    if origin.commit:
        kept = _OWN.sub("", front + "\n").strip("\n").splitlines()
        fields = [*kept, f"base_model: {origin.name}", "base_model_relation: quantized"]
    head = ["---", *fields, "---", ""] if fields else []
    original = ["", "## The card of the original", "", body] if body else []
    return "\n".join([*head, *lines, *original]).rstrip("\n") + "\n"


def provenance_of(result: Compressed, origin: Origin, options: Mapping[str, Any]) -> str:
    """The text of `PROVENANCE`."""
    value = {
        "operation": "compress",
        "llmctl": __version__,
        "options": dict(options),
        "source": {"name": origin.name, "commit": origin.commit, "files": dict(origin.files)},
        "calibration": dict(origin.calibration) if origin.calibration is not None else None,
        "result": {key: value for key, value in result.as_dict().items() if key not in ("name", "out")},
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _about_evaluation(result: Compressed) -> list[str]:
    if result.evaluation is None:
        return [f"Not evaluated: {result.not_evaluated}.", ""] if result.not_evaluated else []
    lines = [
        f"Perplexity is over {result.evaluation['tokens']} tokens of {result.evaluation['text']}; greedy "
        "agreement counts where both models say the same along the first one's answer. Both ran in llmctl.",
        "",
    ]
    if result.method in ("int8", "fp8"):
        lines[0] += (
            " vLLM and transformers round the inputs of these layers to 8 bits as well, and differ by what "
            "that costs."
        )
    return lines


def _about_dense(result: Compressed) -> list[str]:
    lines = []
    for reason, modules in kinds_of(result.dense):
        named = ", ".join(f"`{name}`" for name in list(modules)[:_MAX_NAMED])
        more = f" and {len(modules) - _MAX_NAMED} more" if len(modules) > _MAX_NAMED else ""
        lines.append(f"- {named}{more}: {reason}")
    return lines


def _parted(card: str) -> tuple[str, str]:
    """The front matter, and the text behind it."""
    found = _FRONT_MATTER.match(card)
    if found is None:
        return "", card.strip()
    return found[1].strip("\r\n"), card[found.end() :].strip()
