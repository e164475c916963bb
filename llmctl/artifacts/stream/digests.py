"""What tells tensors apart by content: a BLAKE2b hash, taken piece by piece so that cores share the work."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.pool import ordered
from llmctl.core.errors import BadFileError

PIECE_BYTES = 1 << 20
"""A tensor is cut at multiples of it. All that is made of a piece stays in a core's own cache, and is freed
without going back to the system, which would hand out zeroed pages anew."""
_DIGEST_BYTES = 16


def pieces(num_bytes: int) -> Iterator[tuple[int, int]]:
    """First byte and the one behind the last of each piece; none for a tensor without numbers."""
    for start in range(0, num_bytes, PIECE_BYTES):
        yield start, min(start + PIECE_BYTES, num_bytes)


def num_pieces(num_bytes: int) -> int:
    """How many there are."""
    return -(-num_bytes // PIECE_BYTES)


def of_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Digests of small files. Raises `BadFileError`."""
    try:
        return {name: _of_bytes((folder / name).read_bytes()).hexdigest() for name in names}
    except OSError as error:
        raise BadFileError(f"cannot read {error.filename}: {error.strerror}") from error


def of_piece(raw: Tensor) -> bytes:
    """Hash of uint8 [bytes]."""
    return _of_bytes(bits.buffer_of(raw)).digest()


def of_some(raw: Tensor) -> bytes:
    """Hash of a piece, which is nothing where there is none: behind the end of a shorter tensor."""
    return of_piece(raw) if raw.numel() else b""


def of_pieces(found: Iterable[bytes]) -> str:
    """A tensor's digest from those of its pieces, 32 hexadecimal digits."""
    return _of_bytes(b"".join(found)).hexdigest()


def of_tensor(tensor: Tensor) -> str:
    """Digest of a tensor's bits."""
    raw = bits.as_bytes(tensor)
    return of_pieces(ordered(lambda span: of_piece(raw[span[0] : span[1]]), pieces(raw.numel())))


def of_checkpoint(tensors: Mapping[str, str]) -> str:
    """One digest for the digests of many tensors, by their names."""
    told = "".join(f"{name}\0{digest}\n" for name, digest in sorted(tensors.items()))
    return of_text(told)


def of_text(text: str) -> str:
    """Digest of a text."""
    return _of_bytes(text.encode(errors="surrogatepass")).hexdigest()


def _of_bytes(data: bytes | memoryview) -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES)
