"""What the stand-in hub of `tests.hub` offers: repositories, how they are spoilt, and how they are listed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Body = bytes | Path
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf", ".model", ".onnx", ".h5", ".msgpack")


@dataclass(kw_only=True)
class Fault:
    """How a file, or with the key "api" the repository's info, is spoilt; HEAD requests never are."""

    times: int | None = None
    """That many GETs, None for all; `declared_bytes` spoils every listing."""
    status: int | None = None
    """Answer with this status instead."""
    retry_after_s: int | None = None
    cut_at: int | None = None
    """Break the connection at this byte of the file."""
    bytes_per_s: float | None = None
    is_silent: bool = False
    """Take the request and never answer."""
    body: bytes | None = None
    """Serve these bytes; the listing keeps the true hash and size."""
    declared_bytes: int | None = None
    """List this size; what is served keeps its own."""
    ignores_range: bool = False


@dataclass(kw_only=True)
class Repo:
    """A repository of the stand-in."""

    files: dict[str, Body]
    """The main branch."""
    access: Literal["public", "private", "gated"] = "public"
    revisions: dict[str, dict[str, Body]] = field(default_factory=dict)
    """Other branches, tags and `refs/pr/N`."""
    faults: dict[str, Fault] = field(default_factory=dict)


def tiny_safetensors(num_bytes: int = 1024, *, dtype: str = "BF16") -> bytes:
    """A valid file with one tensor of that many bytes, which must be even."""
    entry = {"dtype": dtype, "shape": [num_bytes // 2], "data_offsets": [0, num_bytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    data = (bytes(range(251)) * (num_bytes // 251 + 1))[:num_bytes]
    return len(header).to_bytes(8, "little") + header + data


def tiny_model(num_bytes: int = 1024) -> dict[str, Body]:
    """The files of a model whose weights are that many bytes; they load nowhere, but are well-formed."""
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b'{"version": "1.0"}',
        "README.md": b"# nothing to load",
        "model.safetensors": tiny_safetensors(num_bytes),
    }


def read(body: Body) -> bytes:
    return body if isinstance(body, bytes) else body.read_bytes()


def digest_of(name: str, body: bytes) -> str:
    if name.endswith(LFS_SUFFIXES):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()


def commit_of(repo_id: str, files: Mapping[str, Body]) -> str:
    tree = {name: digest_of(name, read(body)) for name, body in files.items()}
    return hashlib.sha1(json.dumps([repo_id, tree], sort_keys=True).encode()).hexdigest()


def declared_size(repo: Repo, name: str, body: bytes) -> int:
    declared = repo.faults.get(name, Fault()).declared_bytes
    return len(body) if declared is None else declared


def sibling(repo: Repo, name: str, body: Body, has_blobs: bool) -> dict[str, object]:
    if not has_blobs:
        return {"rfilename": name}
    entry = tree_entry(repo, name, body)
    lfs = entry.get("lfs")
    found: dict[str, object] = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
    if isinstance(lfs, dict):
        found["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return found


def tree_entry(repo: Repo, name: str, body: Body) -> dict[str, object]:
    data = read(body)
    size, digest = declared_size(repo, name, data), digest_of(name, data)
    entry: dict[str, object] = {"type": "file", "oid": digest, "size": size, "path": name}
    if name.endswith(LFS_SUFFIXES):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        entry["oid"] = hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer).hexdigest()
        entry["lfs"] = {"oid": digest, "size": size, "pointerSize": len(pointer)}
    return entry
