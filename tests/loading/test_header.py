"""Safetensors headers, whole and damaged."""

import json
from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError
from llmctl.loading.header import read_header
from tests.hub import tiny_safetensors

GOOD = tiny_safetensors(1024)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    return path


def safetensors(entries: dict[str, object], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["0 bytes and no safetensors header"]),
        (GOOD[:5], ["5 bytes and no safetensors header"]),
        (GOOD[:50], ["cut short", str(len(GOOD) - 1024), "50 found"]),
        (GOOD[:-100], ["cut short", f"{len(GOOD)} bytes expected", f"{len(GOOD) - 100} found"]),
        (GOOD + b"tail", ["longer", f"{len(GOOD)} bytes expected", f"{len(GOOD) + 4} found"]),
        (bytes([255] * 200), ["no safetensors header"]),
        (GOOD[:8] + b"?" + GOOD[9:], ["not safetensors JSON"]),
        (safetensors({"w": {}}, b""), ["not safetensors JSON"]),
        (safetensors({"w": 1}, b""), ["not safetensors JSON"]),
        ((2).to_bytes(8, "little") + b"[]", ["not safetensors JSON"]),
        (
            safetensors({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
            ["not safetensors JSON"],
        ),
        (
            safetensors(
                {
                    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                    "b": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]},
                },
                bytes(10),
            ),
            ["holes"],
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            ["Git LFS pointer", "git lfs pull"],
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(path: Path, body: bytes, words: list[str]) -> None:
    path.write_bytes(body)
    with pytest.raises(BadFileError) as caught:
        read_header(path)
    told = f"{caught.value.message} ({caught.value.hint})"
    assert "\n" not in told
    for word in (str(path), *words):
        assert word in told, told


def test_a_header_gives_each_tensors_place(path: Path) -> None:
    entry = read_header(path)["weight"]
    body = path.read_bytes()
    assert (entry.dtype, entry.shape, entry.num_elements) == ("BF16", (512,), 512)
    assert body[entry.start : entry.end] == body[-1024:]


def test_the_real_library_agrees_on_headers(path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    tensors = {
        "a": numpy.zeros((3, 5), "float32"),
        "b": numpy.zeros((0,), "float16"),
        "c": numpy.ones((), "int64"),
    }
    save_file(tensors, path)
    found = {name: (entry.dtype, entry.shape, entry.num_bytes) for name, entry in read_header(path).items()}
    assert found == {"a": ("F32", (3, 5), 60), "b": ("F16", (0,), 0), "c": ("I64", (), 8)}
