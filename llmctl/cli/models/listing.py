"""`llmctl models list`: the families that llmctl knows, or the models that are on this machine."""

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llmctl.adapters.registry import Registry
from llmctl.adapters.spec import KINDS, Family
from llmctl.cli.console import Console
from llmctl.cli.logs.display import write_json, write_table
from llmctl.cli.models.families import AdapterFiles, check_kind, registry
from llmctl.cli.options import Json, console_of

_FAMILY_COLUMNS = ("FAMILY", "KIND", "TEMPLATE", "ORIGIN", "ABOUT")
_LOCAL_COLUMNS = ("MODEL", "SIZE", "PARAMETERS", "DTYPE", "QUANTISED", "CONTEXT", "FAMILY")


def list_models(
    ctx: typer.Context,
    family: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this family.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="|".join(KINDS), help="Only families of this kind.", show_default=False),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Only what holds all these words, in any column.", show_default=False
        ),
    ] = None,
    is_local: Annotated[
        bool,
        typer.Option("--local", help="Models on this machine: embedded or downloaded.", show_default=False),
    ] = False,
    adapter_file: AdapterFiles = None,
    is_json: Json = False,
) -> None:
    """List model families, or the models on this machine."""
    console = console_of(ctx)
    check_kind(kind)
    known = registry(adapter_file)
    if family is not None:
        # What is not known is an error; what nobody has is an empty list.
        known.by_id(family)
    if is_local:
        rows = [
            row
            for row in local_rows(known)
            if family in (None, row["family"]) and kind in (None, row["kind"]) and _holds(row, search)
        ]
        _write(console, rows, is_json, _LOCAL_COLUMNS, _local_cells)
        return
    families = [each for each in known.families if family in (None, each.id) and kind in (None, each.kind)]
    rows = [row for row in map(family_row, sorted(families, key=_order)) if _holds(row, search)]
    _write(console, rows, is_json, _FAMILY_COLUMNS, _family_cells)


def _order(family: Family) -> tuple[int, str]:
    """The user's own first."""
    return -family.origin_rank, family.id


def family_row(family: Family) -> dict[str, Any]:
    """A family as `--json` shows it."""
    return {
        "id": family.id,
        "title": family.title,
        "kind": family.kind,
        "template": family.template,
        "examples": list(family.examples),
        "about": family.about,
        "link": family.link,
        "note": family.note,
        "origin": family.origin,
    }


def _family_cells(row: dict[str, Any]) -> list[str]:
    return [row["id"], row["kind"], row["template"], row["origin"], row["about"] or row["title"]]


def local_rows(known: Registry) -> list[dict[str, Any]]:
    """The models on this machine as `--json` shows them; of one that cannot be read, what is wrong."""
    from llmctl.cli.models.local import local_row
    from llmctl.loading.hub.local_models import local_models

    return [local_row(name, known, os.environ) for name in local_models(os.environ)]


def _local_cells(row: dict[str, Any]) -> list[str]:
    from llmctl.core.sizes import shown, shown_count

    if row["error"] is not None:
        known = f"{row['family']}: " if row["family"] else ""
        return [row["name"], "-", "-", "-", "-", "-", f"{known}{row['error']}"]
    return [
        row["name"],
        shown(row["bytes"]),
        shown_count(row["parameters"]),
        row["dtype"] or "-",
        row["quantisation"] or "-",
        str(row["context"]),
        row["family"] or "-",
    ]


def _holds(row: dict[str, Any], search: str | None) -> bool:
    """Whether every word stands somewhere in the row."""
    if search is None:
        return True
    text = " ".join(" ".join(value) if isinstance(value, list) else str(value) for value in row.values())
    return all(word in text.casefold() for word in search.casefold().split())


def _write(
    console: Console, rows: Sequence[dict[str, Any]], is_json: bool, columns: Sequence[str], cells: Any
) -> None:
    if is_json:
        write_json(console, list(rows))
    elif rows:
        write_table(console, columns, [cells(row) for row in rows])
    if not rows:
        console.note("nothing fits these conditions")
