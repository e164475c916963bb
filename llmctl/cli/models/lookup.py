"""What is known of a model by its name: its family, its template and where that is from, its stop rules."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.adapters.facts import Facts
from llmctl.adapters.match import Match, TieError, match
from llmctl.adapters.registry import Registry
from llmctl.adapters.spec import NO_TEMPLATE, OF_TOKENIZER, Family
from llmctl.core.errors import LlmctlError, NotFoundError, UsageError
from llmctl.loading.gguf.model import facts_of
from llmctl.loading.hub.local_models import find_here, is_path

if TYPE_CHECKING:
    from llmctl.prompts.template import ChatTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a name stands for."""

    name: str
    folder: Path | None = None
    """Where its files are, when they are on this machine."""
    facts: Facts | None = None
    match: Match | None = None
    """None when its files are damaged."""
    template: "ChatTemplate | None" = None
    """What renders its prompts; None when it is not known, or not by the name alone."""
    template_name: str | None = None
    """A name of the library, a path, `tokenizer` or `none`."""
    template_source: str | None = None
    """flag, row or tokenizer."""
    notes: tuple[str, ...] = ()
    """What a user should know, sentences without a full stop."""
    error: LlmctlError | None = None
    """Why there is no family: none fits, several do, or a file is damaged."""

    @property
    def family(self) -> Family | None:
        """The family that fits best."""
        return self.match.family if self.match is not None else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of `models match`."""
        family, found, template = self.family, self.match, self.template
        named = template.named if template is not None else None
        return {
            "name": self.name,
            "family": family.id if family else None,
            "title": family.title if family else None,
            "kind": family.kind if family else None,
            "generates": family.generates if family else None,
            "template": self.template_name,
            "template_source": self.template_source,
            "matched_by": list(found.matched_by) if found else [],
            "stop": self.stop,
            "stop_token_ids": self.stop_token_ids,
            "roles": list(named.roles) if named is not None else None,
            "loading": dict(family.loading) if family else {},
            "generation": dict(family.generation) if family else {},
            "candidates": [
                {"family": each.family, "why": each.why} for each in (found.candidates if found else ())
            ],
            "near": list(found.near) if found else [],
            "folder": str(self.folder) if self.folder else None,
            "notes": list(self.notes),
            "error": self.error.as_dict() if self.error else None,
        }

    @property
    def stop(self) -> list[str]:
        """Strings that end an answer: the template's, then the family's."""
        own = self.template.stop if self.template is not None else ()
        return list(dict.fromkeys((*own, *(self.family.stop if self.family else ()))))

    @property
    def stop_token_ids(self) -> list[int]:
        """Beside the model's own end tokens."""
        own = self.template.stop_token_ids if self.template is not None else ()
        return list(dict.fromkeys((*own, *(self.family.stop_token_ids if self.family else ()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Looks names up, any number of them."""

    registry: Registry
    explicit: "ChatTemplate | None" = None
    """The template of `--template`."""
    revision: str | None = None
    """Of the repositories that are looked up; None: what they have first."""

    def find(self, name: str, *, folder: Path | None = None) -> Found:
        """What `name` stands for; what goes wrong with it alone is in `Found.error`.

        `folder` is where its files are, for those that lie elsewhere than the name says.
        """
        if folder is not None:
            return self._find(name, folder, path=None)
        folder = find_here(name, os.environ, revision=self.revision)
        # "." and a repository's folder tell more by their whole path; an id tells by itself.
        path = str(folder.absolute()) if folder is not None and is_path(name) else None
        return self._find(name, folder, path=path)

    def _find(self, name: str, folder: Path | None, *, path: str | None) -> Found:
        found = Found(name=name, folder=folder, notes=_place(name, folder))
        try:
            facts = facts_of(folder, find_base=self._base) if folder is not None else None
            found = replace(found, facts=facts)
            answer = match(name, facts, self.registry.families, path=path)
        except TieError as error:
            if self.explicit is None:
                return replace(found, match=error.match, error=error)
            # What the tie leaves open, the user has said.
            settled = replace(found, match=error.match, notes=(*found.notes, error.message))
            return self._with_template(settled)
        except LlmctlError as error:
            return replace(found, error=error)
        if answer.family is None:
            found = replace(found, error=_unknown(answer))
        else:
            found = replace(
                found, notes=(*found.notes, *([answer.family.note] if answer.family.note else []))
            )
        return self._with_template(replace(found, match=answer))

    def _base(self, name: str) -> Path | None:
        return find_here(name, os.environ)

    def _with_template(self, found: Found) -> Found:
        from llmctl.prompts.template import RowTemplate, choose

        family = found.family
        row = (
            RowTemplate(name=family.template, wins=family.template_wins, family=family.id) if family else None
        )
        try:
            chosen = choose(self.explicit, row, of_tokenizer(found.facts), model=found.name)
        except UsageError as error:
            return _without_template(found, error)
        except NotFoundError as error:
            return replace(found, error=error)
        named = chosen.template.named
        name = named.name if named is not None else chosen.template.source
        return replace(found, template=chosen.template, template_name=name, template_source=chosen.source)


def of_tokenizer(facts: Facts | None) -> str | Mapping[str, str] | None:
    """The chat template among a model's files; an adapter without one of its own has its base's."""
    if facts is None:
        return None
    return facts.chat_template or of_tokenizer(facts.base)


def special_tokens(facts: Facts | None) -> Mapping[str, str]:
    """What a template may call `bos_token` and so on; an adapter's own go before its base's."""
    return {**special_tokens(facts.base), **facts.special_tokens} if facts is not None else {}


def _place(name: str, folder: Path | None) -> tuple[str, ...]:
    """What was looked into, when the name does not say it."""
    if folder is None:
        return ("there is no such folder: by its name alone",) if name.startswith(_PATH_STARTS) else ()
    return () if is_path(name) else (f"its files are here: {folder}",)


_PATH_STARTS = ("/", "./", "../", "~")


def _without_template(found: Found, error: UsageError) -> Found:
    """The family says why there is none by the name alone; without a family nothing is known."""
    family = found.family
    if family is None:
        return found
    if family.template == NO_TEMPLATE:
        notes = (*found.notes, f"no chat model: {error.hint}")
        return replace(found, template_name=NO_TEMPLATE, template_source="row", notes=notes)
    if found.folder is None:
        note = (
            "the template lives in the tokenizer: give the model's folder, or download it "
            "(llmctl models pull MODEL)"
        )
    else:
        note = f"{error.message}: {error.hint}"
    return replace(found, template_name=OF_TOKENIZER, template_source="tokenizer", notes=(*found.notes, note))


def _unknown(answer: Match) -> NotFoundError:
    if answer.near:
        hint = f"did you mean {' or '.join(answer.near)}?"
    else:
        hint = "llmctl models list shows all families; --adapter-file adds one"
    return NotFoundError(f"no family fits {answer.name!r}", hint=hint)
