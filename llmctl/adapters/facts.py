"""What a model's folder says of itself: configuration, tokens, chat template, the base of a PEFT adapter.

Reads small JSON files and never the weights. What is absent is empty; what is damaged is an error.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_BASES = 4
"""Adapters upon adapters that are followed."""
_ADDED_TOKENS = re.compile(rb'"added_tokens"\s*:\s*(?=\[)')
_ADDED_TOKENS_BYTES = 8 * 1024 * 1024
_TOKEN_KEY = re.compile(r"\w+_token")
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A model's own files, as far as they tell its family and its prompt."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """`config.json`."""
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset()
    """Added and special tokens of the tokenizer, as they are spelled."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """By role, as chat templates name them: `bos_token`, `eos_token`, ..."""
    chat_template: str | Mapping[str, str] | None = None
    """The tokenizer's own, or several by name."""
    is_peft: bool = False
    """Whether the folder holds an adapter upon another model."""
    peft_base: str | None = None
    """Name or path of that model, as `adapter_config.json` gives it."""
    base: "Facts | None" = None
    """The facts of that model, when its files are at hand."""

    @property
    def model_type(self) -> str | None:
        """`model_type` of the configuration; None when it tells none."""
        value = self.config.get("model_type")
        return value if isinstance(value, str) and value else None

    @property
    def architectures(self) -> tuple[str, ...]:
        """`architectures` of the configuration."""
        value = self.config.get("architectures")
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    @property
    def template_text(self) -> str:
        """All of the tokenizer's chat templates as one text, to look for tokens in."""
        if isinstance(self.chat_template, Mapping):
            return "\n".join(self.chat_template.values())
        return self.chat_template or ""

    def value(self, key: str) -> Any:
        """What the configuration says under a dotted key; `ABSENT` when nothing.

        `rope_scaling.*` and `rope_theta` are found where newer files keep them (`rope_parameters`) as well.
        """
        for path in _spellings(key):
            found = _descend(self.config, path)
            if found is not _ABSENT:
                return found
        return ABSENT


ABSENT = _ABSENT
"""What `Facts.value` answers for a key that is not there."""


def read_facts(folder: Path, *, find_base: Callable[[str], Path | None] | None = None) -> Facts:
    """The facts of a model's folder.

    `find_base` finds the folder of a PEFT adapter's base by the name that the adapter gives; left out, only
    a path counts. Raises `BadFileError` naming a damaged or oversized file, or a circle of adapters.
    """
    return _read(Path(folder), find_base or local_folder, depth=0)


def local_folder(name: str) -> Path | None:
    """The folder that `name` is the path of; None when there is none. Never raises."""
    # Unlike Path, it takes a name that no file can have for an absent one.
    path = os.path.expanduser(name)  # noqa: PTH111
    return Path(path) if name.strip() and os.path.isdir(path) else None  # noqa: PTH112


def _read(folder: Path, find_base: Callable[[str], Path | None], *, depth: int) -> Facts:
    if depth > MAX_BASES:
        raise BadFileError(
            f"{folder / ADAPTER_CONFIG}: adapters upon adapters, more than {MAX_BASES} deep",
            hint="base_model_name_or_path must lead to a model",
        )
    config, tokenizer = _json(folder / CONFIG), _json(folder / "tokenizer_config.json")
    special = _special_tokens(_json(folder / "special_tokens_map.json") | tokenizer)
    adapter = _json(folder / ADAPTER_CONFIG)
    base_name = adapter.get("base_model_name_or_path")
    base_name = base_name if isinstance(base_name, str) and base_name.strip() else None
    base_folder = find_base(base_name) if base_name else None
    return Facts(
        config=config,
        generation_config=_json(folder / "generation_config.json"),
        tokens=frozenset(special.values()) | _added_tokens(folder, tokenizer),
        special_tokens=special,
        chat_template=_chat_template(folder, tokenizer),
        is_peft=(folder / ADAPTER_CONFIG).is_file(),
        peft_base=base_name,
        base=_read(base_folder, find_base, depth=depth + 1) if base_folder else None,
    )


def _spellings(key: str) -> tuple[str, ...]:
    head, _, rest = key.partition(".")
    if head == "rope_theta":
        return (key, "rope_parameters.rope_theta")
    if head == "rope_scaling" and rest:
        # The oldest files call the kind of scaling `type`.
        older = ("rope_scaling.type",) if rest == "rope_type" else ()
        return (key, f"rope_parameters.{rest}", *older)
    return (key,)


def _descend(config: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(config, Mapping) or step not in config:
            return _ABSENT
        config = config[step]
    return config


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like; a token is text or an object with its text in `content`."""
    named = {key: _spelling(value) for key, value in config.items() if _TOKEN_KEY.fullmatch(key)}
    extra = config.get("extra_special_tokens")
    if isinstance(extra, Mapping):
        named |= {key: _spelling(value) for key, value in extra.items()}
    return {key: text for key, text in named.items() if text is not None}


def _spelling(token: Any) -> str | None:
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _added_tokens(folder: Path, tokenizer: Mapping[str, Any]) -> frozenset[str]:
    extra = [tokenizer.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
    listed = [item for value in extra if isinstance(value, list) for item in value]
    decoder = tokenizer.get("added_tokens_decoder")
    if isinstance(decoder, Mapping) and decoder:
        listed += decoder.values()
    else:
        listed += [*_json(folder / "added_tokens.json"), *_tokens_of_tokenizer(folder / "tokenizer.json")]
    return frozenset(text for text in map(_spelling, listed) if text)


def _tokens_of_tokenizer(path: Path) -> list[Any]:
    """The added tokens alone: the vocabulary behind them would take half a second to parse."""
    data = _bytes(path)
    found = _ADDED_TOKENS.search(data or b"")
    if data is None or found is None:
        return []
    text = data[found.end() : found.end() + _ADDED_TOKENS_BYTES].decode(errors="replace")
    try:
        tokens, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    return tokens if isinstance(tokens, list) else []


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> str | Mapping[str, str] | None:
    """As transformers chooses: files of their own before what stands in the tokenizer's configuration."""
    files = {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    if files:
        texts = {name: _text(path) for name, path in files.items()}
        return texts["default"] if list(texts) == ["default"] else texts
    told = tokenizer.get("chat_template") or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(told, list):
        pairs = [(item.get("name"), item.get("template")) for item in told if isinstance(item, Mapping)]
        return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    return told if isinstance(told, str) else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, empty when the file is absent."""
    data = _bytes(path)
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise BadFileError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def _text(path: Path) -> str:
    try:
        return (_bytes(path) or b"").decode()
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error


def _bytes(path: Path) -> bytes | None:
    """The content of a file, None when it is absent."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadFileError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read",
                hint="this is not the file that its name says",
            )
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error


def _damaged(path: Path, error: Exception) -> BadFileError:
    return BadFileError(f"{path} is not valid JSON: {error}", hint="download or copy the file again")
