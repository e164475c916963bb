"""`llmctl config show`: every setting in force, and with `--origin` where it comes from."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core import settings as settings_module
from llmctl.core.settings import Settings


def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    is_json: Json = False,
) -> None:
    """Show every setting in force and where it comes from."""
    console, settings = console_of(ctx), settings_of(ctx)
    values = _values(settings)
    origins = {key: settings.origins.get(key, "default") for key in values}
    if is_json:
        shown: Any = {key: {"value": values[key], "origin": origins[key]} for key in values}
        console.json(shown if origin else values)
        return
    rows = [[key, _text(values[key]), *([origins[key]] if origin else [])] for key in values]
    console.table(["KEY", "VALUE", *(["ORIGIN"] if origin else [])], rows)


def _values(settings: Settings) -> dict[str, Any]:
    own = asdict(settings)
    return {key: own[key] if key in own else settings.sampling.get(key) for key in settings_module.KEYS}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    # A text of several lines would break the table.
    return value if isinstance(value, str) and value.isprintable() else repr(value)
