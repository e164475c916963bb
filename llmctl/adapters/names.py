"""Which part of a model's name or path tells its family, and whether a literal stands in it.

Only text is looked at, never the disk. The same rules hold for hub ids, folders, URLs and the hub's cache.
"""

import re

_SEPARATORS = re.compile(r"[/\\]+")
_BLANKS = re.compile(r"[_\s]+")
_WORD_BREAKS = re.compile(r"[-.=@:+]+")
_HUB_FOLDER = "models--"
_MODELSCOPE_DOT = "___"
"""What ModelScope's cache writes for a dot."""
_GENERIC = re.compile(
    # A count or a hash: checkpoint-100, epoch3, v2, 0123456789abcdef.
    r"(?:checkpoint|ckpt|epoch|step|iter|run|version|v|rank|stage|part)?\d*|[0-9a-f]{16,}"
    # A size or a format of numbers: 7b, 8x7b, 4bit, fp16, q4, w4a16.
    r"|\d+[bmk]?|\d+x\d+[bm]|\d+bits?|b?fp?\d+|int\d|q\d|w\d+a\d+"
    r"|adapters?|q?loras?|dora|peft|deltas?|checkpoints?|ckpts?|epochs?|steps?|iter|iteration|global|runs?"
    r"|final|best|latest|last|merged?|new|old|te?mp|test|models?|llms?|weights?|outputs?|out|results?"
    r"|saved?|saves|export|exported|main|master|snapshots?|refs|blobs?|tree|resolve|pr|hub|cache|data"
    r"|hf|huggingface|transformers|pytorch|torch|safetensors|bin|onnx|gguf|ggml|gptq|awq|exl2|mlx|quant"
    r"|quantized|chat|instruct|base|sft|dpo|rlhf|finetuned?|trained"
)
"""A word that names a stage, format or size and no family."""


_FILE = re.compile(
    r"(?:model|pytorch-model|ggml-model|consolidated|config|generation-config|tokenizer|adapter-model)"
    r"[^/]*\.(?:safetensors|bin|json|gguf|pth?|model)"
)
"""A file of a model, whose name is the same for all; the folder above it tells the family."""


def deciding_part(name: str) -> str:
    """The part of a name or path that tells the family, normalised; "" when there is none.

    It is the last one that is more than a stage, format or size of a model (`checkpoint-100`, `final`,
    `snapshots/HASH`, `7b-chat`); when all are no more than that, the last one.
    """
    parts = _parts(name)
    for index in range(len(parts) - 1, -1, -1):
        is_snapshot = index > 0 and parts[index - 1] == "snapshots"
        if not is_snapshot and not _is_generic(parts[index]) and _FILE.fullmatch(parts[index]) is None:
            return parts[index]
    return parts[-1] if parts else ""


def normalise(text: str) -> str:
    """Lower case, "-" for underscores and blanks: the form that literals are written in."""
    return _BLANKS.sub("-", text.replace(_MODELSCOPE_DOT, ".").strip().casefold())


def occurs(literal: str, part: str) -> bool:
    """Whether `literal` stands in `part` as words of its own; both are normalised.

    No letter may be before or behind it, and no number may go on across its ends: "mpt" is not in "prompt",
    "llama-3" neither in "llama-30b" nor in "llama-3b"; "chatglm" is in "chatglm2".
    """
    start = part.find(literal)
    while start >= 0:
        end = start + len(literal)
        if _is_bound(part[start - 1 : start], literal[0]) and _is_bound(part[end : end + 1], literal[-1]):
            return True
        start = part.find(literal, start + 1)
    return False


def _parts(name: str) -> list[str]:
    parts: list[str] = []
    for raw in _SEPARATORS.split(name):
        # The hub's cache writes org/name as models--org--name.
        pieces = raw.split("--")[1:] if raw.strip().casefold().startswith(_HUB_FOLDER) else [raw]
        for part in map(normalise, pieces):
            if part == "..":
                del parts[-1:]
            elif part.strip(".") not in ("", "~"):
                parts.append(part)
    return parts


def _is_generic(part: str) -> bool:
    return all(_GENERIC.fullmatch(word) for word in _WORD_BREAKS.split(part))


def _is_bound(neighbour: str, edge: str) -> bool:
    """Whether a word may end between `edge`, a literal's first or last character, and its neighbour."""
    return not neighbour.isalpha() and not (neighbour.isdigit() and edge.isdigit())
