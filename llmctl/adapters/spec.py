"""One family of models as data: what a row of a TOML file may hold, checked when it is read.

README, Adding things, shows a row. A key that is not here is an error that names file, row and key.
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmctl.adapters.names import normalise
from llmctl.adapters.rules import Between, Condition, FactRule, NameRule, OneOf
from llmctl.adapters.table import Table, is_texts
from llmctl.core.errors import BadFileError, UsageError
from llmctl.prompts import template

if TYPE_CHECKING:
    from llmctl.adapters.base import ModelAdapter

KINDS = ("decoder", "encoder-decoder", "embedding", "reranker", "vision-language", "api")
GENERATES = ("causal", "encoder-decoder", "jacobi", "none")
OF_TOKENIZER, NO_TEMPLATE = template.OF_TOKENIZER, template.NO_TEMPLATE
BUILT_IN = "built in"
BUILT_IN_RANK, PLUGIN_RANK, USER_RANK = 0, 1, 2
MAX_ABOUT = 100
"""Characters of a row's one line about its family."""
LOADING: dict[str, type | tuple[str, ...]] = {
    "trust_remote_code": bool,
    "slow_tokenizer": bool,
    "use_fast": bool,
    "dtype": ("float32", "bfloat16", "float16"),
    "set_pad_to_eos": bool,
    "pad_token_id": int,
    "eos_token": str,
    "eos_token_id": int,
    "added_tokens": list,
    "max_context": int,
    "padding_side": ("left", "right"),
    "pooling": ("cls", "mean", "last"),
    "jacobi_tokens": int,
}
"""What `[family.loading]` may say: the type of each value or the words that it may be."""
_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
_RANGE_KEYS = {"min", "max"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """A family of models: how it is recognised, prompted, stopped and loaded. Equal to itself alone."""

    id: str
    title: str
    template: str
    """A name of `prompts.library`, `OF_TOKENIZER` or `NO_TEMPLATE`."""
    template_wins: bool = False
    """Whether `template` goes before the tokenizer's own."""
    kind: str = "decoder"
    """One of `KINDS`."""
    generates: str = "causal"
    """One of `GENERATES`: which code of `engine/generate` makes the answer."""
    link: str = ""
    about: str = ""
    source: str = ""
    """Where the row's facts are from."""
    note: str = ""
    """What a user should know."""
    examples: tuple[str, ...] = ()
    """Names that resolve to this row."""
    name_rule: NameRule = field(default_factory=NameRule)
    fact_rule: FactRule = field(default_factory=FactRule)
    stop: tuple[str, ...] = ()
    """Beside those of the template."""
    stop_token_ids: tuple[int, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    """What the makers recommend, by the names of `SamplingParams`."""
    loading: Mapping[str, Any] = field(default_factory=dict)
    """By the keys of `LOADING`; absent is transformers' default."""
    code: str | None = None
    """`module:Class` for logic that no row can say."""
    adapter: "ModelAdapter | None" = None
    """The object that matches instead of the rules, where the family is a class of somebody's."""
    origin: str = BUILT_IN
    """`BUILT_IN`, "plugin NAME" or the file's path."""
    origin_rank: int = BUILT_IN_RANK


def read_rows(
    text: str,
    *,
    where: str,
    origin: str = BUILT_IN,
    origin_rank: int = BUILT_IN_RANK,
    templates: Collection[str] | None = None,
) -> tuple[Family, ...]:
    """The families of a TOML text.

    `where` names the file in messages; `templates` are the names that a row's template may have, unchecked
    when left out. Raises `BadFileError` naming file, row and key.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFileError(f"{where} is not valid TOML: {error}") from error
    rows = values.pop("family", None)
    if values or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadFileError(f"{where} must hold rows that begin with [[family]] and nothing else")
    families = tuple(_family(row, where, number, origin, origin_rank) for number, row in enumerate(rows, 1))
    _check_ids(families, where)
    if templates is not None:
        _check_templates(families, where, templates)
    return families


def _family(row: Mapping[str, Any], where: str, number: int, origin: str, origin_rank: int) -> Family:
    told = row.get("id")
    table = Table(
        row, where=f"{where}, family {told!r}" if isinstance(told, str) else f"{where}, row {number}"
    )
    family_id = table.text("id")
    if not _ID.fullmatch(family_id):
        raise table.error("id", "may hold small letters, digits, dots and dashes")
    match, facts, stop = table.table("match"), table.table("facts"), table.table("stop")
    family = Family(
        id=family_id,
        title=table.text("title", family_id),
        template=table.text("template"),
        template_wins=table.flag("template_wins"),
        kind=table.text("kind", "decoder", choices=KINDS),
        generates=table.text("generates", "causal", choices=GENERATES),
        link=table.optional("link"),
        about=_about(table),
        source=table.optional("source"),
        note=table.optional("note"),
        examples=table.texts("examples"),
        name_rule=_name_rule(match),
        fact_rule=_fact_rule(facts),
        stop=stop.texts("strings"),
        stop_token_ids=stop.ids("token_ids"),
        generation=_generation(table.table("generation")),
        loading=_loading(table.table("loading")),
        code=_code(table.table("code")),
        origin=origin,
        origin_rank=origin_rank,
    )
    for part in (table, match, facts, stop):
        part.close()
    _check_recognised(family, table)
    return family


def _about(table: Table) -> str:
    about = table.optional("about")
    if len(about) > MAX_ABOUT or "\n" in about:
        raise table.error("about", f"must be one line of at most {MAX_ABOUT} characters, not {len(about)}")
    return about


def _name_rule(table: Table) -> NameRule:
    rule = NameRule(
        names=table.literals("names"), exact=table.texts("exact"), model_types=table.texts("model_types")
    )
    named = tuple(literal for entry in rule.names for literal in entry)
    for key, literals in (("names", named), ("exact", rule.exact)):
        for literal in literals:
            if normalise(literal) != literal:
                raise table.error(
                    key, f"cannot match {literal!r}", hint=f"names are compared as {normalise(literal)!r}"
                )
    return rule


def _fact_rule(table: Table) -> FactRule:
    config = table.table("config")
    return FactRule(
        model_type=table.texts("model_type"),
        architectures=table.texts("architectures"),
        tokens=table.texts("tokens"),
        config=dict(_conditions(config, "", config.rest())),
    )


def _conditions(table: Table, path: str, values: Mapping[str, Any]) -> list[tuple[str, Condition]]:
    """By dotted key; a table that is not a range goes one step down."""
    found: list[tuple[str, Condition]] = []
    for key, value in values.items():
        if isinstance(value, dict) and not (value and value.keys() <= _RANGE_KEYS):
            found += _conditions(table, f"{path}{key}.", value)
        else:
            found.append((f"{path}{key}", _condition(table, f"{path}{key}", value)))
    return found


def _condition(table: Table, key: str, value: Any) -> Condition:
    if isinstance(value, dict):
        bounds = value.values()
        if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
            raise table.error(key, f"must have numbers for min and max, not {value!r}")
        return Between(low=value.get("min"), high=value.get("max"))
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str | int | float) for item in values):
        raise table.error(key, f"must be a string, a number, true, false or a list of these, not {value!r}")
    return OneOf(tuple(values))


def _generation(table: Table) -> Mapping[str, Any]:
    values = table.rest()
    if not values:
        return values
    # Few rows say any, and importing it takes as long as reading fifty rows.
    from llmctl.core import sampling
    from llmctl.core.types import SamplingParams

    for key, value in values.items():
        if key not in sampling.RANGES:
            raise table.error(key, "is not known here", hint=f"known: {', '.join(sampling.RANGES)}")
        try:
            sampling.update(SamplingParams(), {key: value})
        except UsageError as error:
            raise table.error(key, f"is wrong: {error.message}") from error
    return values


def _loading(table: Table) -> Mapping[str, Any]:
    values = table.rest()
    for key, value in values.items():
        kind = LOADING.get(key)
        if kind is None:
            raise table.error(key, "is not known here", hint=f"known: {', '.join(LOADING)}")
        if isinstance(kind, tuple):
            is_right, wanted = value in kind, f"one of {', '.join(kind)}"
        elif kind is list:
            is_right, wanted = is_texts(value), "a list of strings"
        else:
            is_right, wanted = type(value) is kind, _NOUNS[kind]
        if not is_right:
            raise table.error(key, f"must be {wanted}, not {value!r}")
    return values


_NOUNS: dict[type, str] = {bool: "true or false", int: "a whole number", str: "a string"}


def _code(table: Table) -> str | None:
    target = table.optional("class")
    table.close()
    if target and not re.fullmatch(r"[\w.]+:\w+", target):
        raise table.error("class", f"must be module:Class, not {target!r}")
    return target or None


def _check_recognised(family: Family, table: Table) -> None:
    rule = family.name_rule
    if not (rule.names or rule.exact or family.fact_rule.is_given):
        raise table.error("match", "is missing: nothing tells this family by name or facts")
    if family.template == NO_TEMPLATE and family.template_wins:
        raise table.error("template_wins", f"cannot be with the template {NO_TEMPLATE!r}")


def _check_ids(families: tuple[Family, ...], where: str) -> None:
    seen: set[str] = set()
    for family in families:
        if family.id in seen:
            raise BadFileError(f"{where}: two families have the id {family.id!r}")
        seen.add(family.id)


def _check_templates(families: tuple[Family, ...], where: str, templates: Collection[str]) -> None:
    import difflib

    for family in families:
        if family.template in (OF_TOKENIZER, NO_TEMPLATE) or family.template in templates:
            continue
        near = difflib.get_close_matches(family.template, templates, n=3) or [OF_TOKENIZER, NO_TEMPLATE]
        raise BadFileError(
            f"{where}, family {family.id!r}: no template is called {family.template!r}",
            hint=f"near: {', '.join(near)}",
        )
