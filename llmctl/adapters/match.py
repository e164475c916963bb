"""Which family a model is of, by its name and by the facts of its folder, with reasons. Pure.

Ranked without regard to the order of rows: the user's row over a plugin's over ours; name and facts over
one of them; more letters of the name; more facts. Two rows that are equal in all are an error that says so.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmctl.adapters.base import template_name
from llmctl.adapters.facts import Facts, local_folder, read_facts
from llmctl.adapters.foreign import named
from llmctl.adapters.names import deciding_part
from llmctl.adapters.near import near
from llmctl.adapters.rules import Hit
from llmctl.adapters.spec import OF_TOKENIZER, Family
from llmctl.core.errors import AmbiguousError

BY_BOTH, BY_NAME, BY_FACTS = "name and facts", "name", "facts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A family that fits, and how well."""

    family: str
    """Its id."""
    evidence: str
    """`BY_BOTH`, `BY_NAME` or `BY_FACTS`."""
    reasons: tuple[str, ...]
    rank: tuple[int, int, int, int]
    """Origin, evidence, letters of the name, facts; the greatest wins."""

    @property
    def why(self) -> str:
        """The reasons as one line."""
        return ", ".join(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The answer: a family, or none and what comes near."""

    name: str
    """As it was asked for."""
    part: str
    """The part of the name that decided, normalised; of a PEFT adapter that of its base."""
    family: Family | None
    """None when no row fits or several do equally well."""
    matched_by: tuple[str, ...]
    """The reasons in words."""
    candidates: tuple[Candidate, ...]
    """All rows that fit, best first, the chosen one too."""
    near: tuple[str, ...] = ()
    """Known names that look like this one, when nothing fits."""


class TieError(AmbiguousError):
    """Several families fit equally well."""

    def __init__(self, match: Match, tied: Sequence[Candidate]) -> None:
        """`match` is the answer without a family, `tied` the best candidates."""
        listed = "; ".join(f"{candidate.family} ({candidate.why})" for candidate in tied)
        super().__init__(
            f"{match.name!r} fits several families equally well: {listed}",
            hint="say how to prompt it with --template NAME, or add a row of your own with --adapter-file",
        )
        self.match = match


def resolve(name: str, families: Sequence[Family], *, folder: str | os.PathLike[str] | None = None) -> Match:
    """Match a name whose folder, if it is the path of one, is looked into.

    `folder` is where the model lies when its name is no path. Raises `TieError`, `BadFileError` for a
    damaged folder.
    """
    found = local_folder(os.fspath(folder) if folder is not None else name)
    facts = read_facts(found) if found is not None else None
    # "." and ".." tell nothing by themselves.
    path = os.path.abspath(found) if found is not None and folder is None else None  # noqa: PTH100
    return match(name, facts, families, path=path)


def match(
    name_or_path: str, facts: Facts | None, families: Sequence[Family], *, path: str | None = None
) -> Match:
    """The family of a model.

    `facts` are those of its folder, None when there is no folder; `path` goes for the name where given.
    A PEFT adapter is of its base's family. Raises `TieError`, which carries the `Match`, and `BadFileError`
    when the code of an adapter class fails.
    """
    target, facts, led_here = _follow_bases(path or name_or_path, facts)
    part = deciding_part(target)
    fitting = [(family, found) for family in families if (found := _candidate(family, target, part, facts))]
    fitting.sort(key=lambda pair: ([-level for level in pair[1].rank], pair[0].id, pair[0].origin))
    candidates = tuple(found for _, found in fitting)
    tied = [found for found in candidates if found.rank == candidates[0].rank]
    answer = Match(name=name_or_path, part=part, family=None, matched_by=led_here, candidates=candidates)
    if len(tied) > 1:
        raise TieError(answer, tied)
    if not tied:
        return replace(answer, near=near(part, families))
    family = _with_template(fitting[0][0], target)
    return replace(answer, family=family, matched_by=(*led_here, *tied[0].reasons))


def _follow_bases(name: str, facts: Facts | None) -> tuple[str, Facts | None, tuple[str, ...]]:
    """What to match for a PEFT adapter: the name and facts of its base, and how that was found."""
    reasons: list[str] = []
    while facts is not None and facts.is_peft:
        if facts.peft_base is None:
            reasons.append("adapter_config.json: no base model is named")
        else:
            name = facts.peft_base
            reasons.append(f"adapter_config.json: base model {name}")
        # Without the base's own files those beside the adapter are what is known of it.
        facts = facts.base or replace(facts, is_peft=False)
    return name, facts, tuple(reasons)


def _candidate(family: Family, name: str, part: str, facts: Facts | None) -> Candidate | None:
    rule = family.name_rule
    model_type = facts.model_type if facts is not None else None
    if family.adapter is not None:
        by_name = _ask(family, name)
    elif not rule.allows(model_type):
        return None
    else:
        by_name = rule.hit(part)
    by_facts = family.fact_rule.hit(facts) if facts is not None else None
    if by_name is None and by_facts is None:
        return None
    reasons = (*(by_name.reasons if by_name else ()), *(by_facts.reasons if by_facts else ()))
    fits_type = model_type is not None and bool(rule.model_types)
    if by_name and fits_type and by_facts is None:
        reasons = (*reasons, f"config.json: model_type {model_type}")
    is_both = by_name is not None and (by_facts is not None or fits_type)
    return Candidate(
        family=family.id,
        evidence=BY_BOTH if is_both else BY_NAME if by_name else BY_FACTS,
        reasons=reasons,
        rank=(family.origin_rank, 1 + is_both, _weight(by_name), _weight(by_facts)),
    )


def _weight(hit: Hit | None) -> int:
    return hit.weight if hit is not None else 0


def _ask(family: Family, name: str) -> Hit | None:
    """A class is asked as FastChat asks: by the last part of a path, then by the whole."""
    assert family.adapter is not None
    last = name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    with named(f"{type(family.adapter).__name__}.match ({family.origin})"):
        is_match = bool(family.adapter.match(last) or family.adapter.match(name))
    return Hit(0, (f"{type(family.adapter).__name__}.match says so",)) if is_match else None


def _with_template(family: Family, name: str) -> Family:
    """A class names its template for each model; one that names none leaves it to the tokenizer."""
    if family.adapter is None:
        return family
    with named(f"{type(family.adapter).__name__}.get_default_conv_template ({family.origin})"):
        template = template_name(family.adapter, name)
    return replace(family, template=template or OF_TOKENIZER)
