"""A delta that was damaged, or made to do harm, is one clear refusal: no traceback, and no other file."""

import base64
import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.artifacts.delta.apply import Wish as ApplyWish
from llmctl.artifacts.delta.apply import apply
from llmctl.artifacts.delta.apply_add import apply_add
from llmctl.artifacts.delta.find import find
from llmctl.artifacts.delta.make import make
from llmctl.artifacts.delta.make_add import make_add
from llmctl.artifacts.delta.manifest import digest_of
from llmctl.artifacts.delta.opened import Delta
from llmctl.artifacts.delta.results import Wish
from llmctl.artifacts.delta.show import show
from llmctl.artifacts.delta.verify import verify
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError, LlmctlError
from llmctl.core.progress import SilentProgress
from tests.artifacts.delta.pairs import hashes_of, write

SILENT = SilentProgress()
ODD: tuple[Any, ...] = (
    *(-1, 0, 1, 7, 2**31, 10**18, 10**40, 0.5, 1e308, float("inf"), True, None, "", "x", "../../evil"),
    *("/etc/passwd", "a\0b", "\ud800", [], [-1], [10**18, 10**18], {}, {"x": 1}, "same", "new", "F4", "F32"),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    tensors = {"a": torch.arange(12.0).view(4, 3), "b": torch.arange(5), "c": torch.ones(2).bfloat16()}
    write(folder / "base", tensors)
    changed = {"a": torch.arange(15.0).view(5, 3) + 1, "b": torch.arange(5), "d": torch.ones(3).half()}
    write(folder / "target", changed, shards=2)
    grown = {name: tensor + 1 for name, tensor in tensors.items()}
    base, wish = Source.open(folder / "base"), Wish(out=folder / "exact")
    make(base, Source.open(folder / "target"), wish, SILENT)
    make_add(base, Source.open(write(folder / "grown", grown)), Wish(out=folder / "add"), SILENT)
    return folder


def use(base: Path, delta: Path, out: Path) -> None:
    """All that can be done with a delta."""
    found = find(str(delta), revision=None, progress=SILENT)
    source = Source.open(base)
    show(found)
    verify(found, source, None, SILENT)
    if found.kind == "add":
        apply_add(source, found, ApplyWish(out=out), SILENT)
    else:
        apply(source, Delta.open(delta), ApplyWish(out=out), SILENT)


def spots(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value of JSON."""
    yield at
    each = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in each:
        yield from spots(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    made = copy.deepcopy(value)
    if not at:
        return new
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    if new == "(gone)":
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return made


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "llmctl_delta.json").read_text())


def in_a_copy(delta: Path, places: Path, spoil: Callable[[Path], object]) -> dict[str, str] | None:
    """Use a delta that was spoilt: the hashes of what it makes, or None where it is refused."""
    with tempfile.TemporaryDirectory(dir=places) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        room = Path(name)
        shutil.copytree(delta, room / "d")
        spoil(room / "d")
        try:
            use(places / "base", room / "d", room / "out")
        except LlmctlError:
            # Neither the result nor the place where it was made.
            assert [path.name for path in room.iterdir()] == ["d"]
            return None
        return hashes_of(room / "out")


def weights(hashes: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in hashes.items() if "safetensors" in name}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), kind=st.sampled_from(("exact", "add")))
def test_a_manifest_with_anything_in_any_place_is_refused_or_harmless(
    places: Path, data: st.DataObject, kind: str
) -> None:
    told = manifest_of(places / kind)
    at = data.draw(st.sampled_from(list(spots(told))))
    new = data.draw(st.sampled_from((*ODD, "(gone)")))
    made = put(told, at, new)
    # Whoever means harm writes the digest too.
    text = json.dumps({**made, "digest": digest_of(made)} if isinstance(made, dict) else made)
    in_a_copy(places / kind, places, lambda delta: (delta / "llmctl_delta.json").write_text(text))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_header_with_anything_in_any_place_is_refused_or_harmless(
    places: Path, data: st.DataObject
) -> None:
    whole = (places / "exact" / "delta.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    told = json.loads(whole[8 : 8 + size])
    told["__metadata__"]["tensors"] = json.loads(told["__metadata__"]["tensors"])
    at = data.draw(st.sampled_from(list(spots(told))))
    made = put(told, at, data.draw(st.sampled_from((*ODD, "(gone)"))))
    if isinstance(made, dict) and isinstance(made.get("__metadata__"), dict):
        made["__metadata__"]["tensors"] = json.dumps(made["__metadata__"].get("tensors"))
    text = json.dumps(made).encode()

    data_of = len(text).to_bytes(8, "little") + text + whole[8 + size :]
    in_a_copy(places / "exact", places, lambda delta: (delta / "delta.safetensors").write_bytes(data_of))


@settings(deadline=None, max_examples=80)
@given(data=st.data(), name=st.sampled_from(("llmctl_delta.json", "delta.safetensors")))
def test_a_flipped_bit_in_any_file_is_refused_or_changes_no_weight(
    places: Path, data: st.DataObject, name: str
) -> None:
    whole = bytearray((places / "exact" / name).read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    made = in_a_copy(places / "exact", places, lambda delta: (delta / name).write_bytes(bytes(whole)))
    assert made is None or weights(made) == weights(hashes_of(places / "target"))


@pytest.mark.parametrize(
    ("kind", "at", "new"),
    [
        ("exact", ("tensors", "a", "base_rows"), 10**18),
        ("exact", ("tensors", "d", "num_bytes"), 10**18),
        ("exact", ("tensors", "d", "shape"), [10**18]),
        ("exact", ("files", 0, "name"), "../x.safetensors"),
        ("exact", ("files", 0, "name"), "a\0.safetensors"),
        ("add", ("tensors",), {}),
    ],
)
def test_a_manifest_that_means_harm_is_refused(
    places: Path, tmp_path: Path, kind: str, at: tuple[Any, ...], new: object
) -> None:
    made = put(manifest_of(places / kind), at, new)
    shutil.copytree(places / kind, tmp_path / "d")
    (tmp_path / "d" / "llmctl_delta.json").write_text(json.dumps({**made, "digest": digest_of(made)}))
    with pytest.raises(BadFileError, match=r"is damaged|is not the base"):
        use(places / "base", tmp_path / "d", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_headers_that_unpack_to_more_than_memory_are_refused(places: Path, tmp_path: Path) -> None:
    bomb = base64.b64encode(zstandard.ZstdCompressor().compress(bytes(60_000_000))).decode()
    files = [{"name": f"{number}.safetensors", "header": bomb} for number in range(2)]
    made = {**manifest_of(places / "exact"), "files": files}
    (tmp_path / "llmctl_delta.json").write_text(json.dumps({**made, "digest": digest_of(made)}))
    with pytest.raises(BadFileError, match="headers that are too long"):
        Delta.open(tmp_path)


def test_a_delta_without_one_of_its_files_is_refused(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places / "exact", tmp_path / "d")
    (tmp_path / "d" / "delta.safetensors").unlink()
    with pytest.raises(BadFileError, match="is damaged: d is missing"):
        Delta.open(tmp_path / "d")


def test_a_file_that_came_with_it_and_was_changed_is_told(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places / "exact", tmp_path / "d")
    (tmp_path / "d" / "tokenizer.json").write_text("{}")
    (tmp_path / "d" / "config.json").unlink()
    found = find(str(tmp_path / "d"), revision=None, progress=SILENT)
    told = verify(found, None, None, SILENT)
    assert (told.is_right, told.other_files) == (False, ("config.json", "tokenizer.json"))
    delta, out = Delta.open(tmp_path / "d", name="d"), ApplyWish(out=tmp_path / "out")
    assert apply(Source.open(places / "base"), delta, out, SILENT).notices == (
        "the delta d lacks config.json, which its target had",
        "tokenizer.json of the delta d is not what its target had",
    )
