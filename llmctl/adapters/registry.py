"""All families that a command knows: built in, of plugins, and of the user; read when first needed."""

import functools
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from llmctl.adapters.foreign import named
from llmctl.adapters.match import Match, resolve
from llmctl.adapters.registered import REGISTERED
from llmctl.adapters.spec import USER_RANK, Family, read_rows
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded

DATA = Path(__file__).parent / "data"
USER_FOLDER = "adapters"
"""Below `Places.config`: every *.toml in it is read."""


class Registry:
    """Families by id. A row of the user goes before a plugin's with the same id, and that before ours."""

    def __init__(self, families: Iterable[Family]) -> None:
        """Of `families` with one id the later one stays."""
        self._by_id = {family.id: family for family in families}
        self.families: tuple[Family, ...] = tuple(self._by_id.values())

    @classmethod
    def load(
        cls, user_folder: Path | None, adapter_files: Sequence[Path] = (), plugins: bool = True
    ) -> "Registry":
        """Everything that there is: ours, plugins', what was registered, `user_folder`, `adapter_files`.

        A .py file among `adapter_files` is executed. Raises `BadFileError` for a broken file of the user's,
        `NotFoundError` and `UsageError` for one that is not there or of another kind.
        """
        families = [*built_in()]
        if plugins:
            from llmctl.adapters.plugins import plugin_families

            families += plugin_families()
        families += REGISTERED.families()
        families += _of_folder(user_folder) if user_folder is not None else ()
        for file in adapter_files:
            families += _of_file(file)
        return cls(families)

    def by_id(self, family_id: str) -> Family:
        """The family with this id. Raises `NotFoundError` with what comes near."""
        try:
            return self._by_id[family_id]
        except KeyError:
            import difflib

            near = difflib.get_close_matches(family_id, self._by_id, n=3)
            hint = f"near: {', '.join(near)}" if near else "llmctl models list shows all"
            raise NotFoundError(f"no family is called {family_id!r}", hint=hint) from None

    def resolve(self, name: str, *, folder: Path | None = None) -> Match:
        """`match.resolve` among these families."""
        return resolve(name, self.families, folder=folder)


@functools.lru_cache(maxsize=1)
def built_in() -> tuple[Family, ...]:
    """The families of llmctl's own data. Raises `BadFileError` only when that is broken."""
    families: dict[str, Family] = {}
    for path in sorted(DATA.glob("*.toml")):
        for family in read_rows(path.read_text(encoding="utf-8"), where=path.name):
            if family.id in families:
                raise BadFileError(f"{path.name}: another file has a family with the id {family.id!r}")
            families[family.id] = family
    return tuple(families.values())


def _of_folder(folder: Path) -> list[Family]:
    families: dict[str, Family] = {}
    for path in sorted(folder.glob("*.toml")):
        for family in _rows(path):
            if family.id in families:
                raise BadFileError(
                    f"{path} and {families[family.id].origin} both have a family {family.id!r}"
                )
            families[family.id] = family
    return list(families.values())


def _of_file(path: Path) -> tuple[Family, ...]:
    path = expanded(str(path))
    if not path.is_file():
        raise NotFoundError(f"no adapter file {str(path)!r}", hint="--adapter-file takes a .toml or .py file")
    if path.suffix == ".toml":
        return _rows(path)
    if path.suffix == ".py":
        return _classes(path)
    raise UsageError(f"{path} is neither .toml nor .py", hint="--adapter-file takes rows or classes")


def _rows(path: Path) -> tuple[Family, ...]:
    from llmctl.prompts.library import names

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error
    return read_rows(text, where=str(path), origin=str(path), origin_rank=USER_RANK, templates=names())


def _classes(path: Path) -> tuple[Family, ...]:
    """Run the file; what it registers is for this registry alone."""
    name = f"llmctl_adapter_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    with REGISTERED.collecting(str(path)) as found, named(str(path)):
        spec.loader.exec_module(module)
    if not found:
        raise UsageError(
            f"{path} registers no adapter", hint="call llmctl.adapters.register_model_adapter(YourAdapter)"
        )
    return tuple(found.values())
