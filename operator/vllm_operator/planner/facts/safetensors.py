"""Sizes of tensors from the headers of safetensors files, and the files that an index names.

A file begins with the length of its header, 8 bytes little-endian, then the header, a JSON object with the data type,
shape and place of each tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from vllm_operator.planner.facts.document import MAX_DOCUMENT_BYTES, parse_json
from vllm_operator.planner.facts.errors import invalid
from vllm_operator.planner.facts.speculative import is_speculative
from vllm_operator.planner.facts.weights import MAX_BYTES, LoadedWeights
from vllm_operator_api.model import WeightsSource

PREFIX_BYTES: Final = 8
MAX_HEADER_BYTES: Final = MAX_DOCUMENT_BYTES
"""Of one file. The format itself allows 100 MB; a file of a sharded model has some hundred KiB."""
MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
"""Kimi-K3's, with half a million tensors, has some 50 MiB."""
MAX_SHARDS: Final = 20_000
_ENTRY: Final = re.compile(rb'"([^"\\]{1,512})"\s{0,64}:\s{0,64}"([^"\\]{1,255})"')
_TOTAL: Final = re.compile(rb'"total_size"\s{0,64}:\s{0,64}(\d{1,18})')
_LONGEST_ENTRY: Final = 1024
_MAX_GAP_BYTES: Final = 1024 * 1024
"""An index has an entry within so many bytes, or it is none."""
_SAFETENSORS: Final = b".safetensors"
_NAME: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.=@+ -]{0,254}$")


def header_length(prefix: bytes, what: str) -> int:
    """Bytes of the header after the first eight.

    Raises:
        ModelError: the file is too short, or the length is none that a header has.
    """
    if len(prefix) < PREFIX_BYTES:
        invalid(f"{what} has only {len(prefix)} bytes: it is no safetensors file")
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        invalid(f"{what} says that its header has {length} bytes; at most {MAX_HEADER_BYTES} are read")
    return length


@dataclass(slots=True)
class TensorSizes:
    """Bytes of the tensors that vLLM loads, added up over the files of a model."""

    layers: int
    """Layers of the model: further ones are for multi-token prediction."""
    total: int = 0
    embedding: int = 0
    head: int = 0
    experts: int = 0
    encoder: int = 0
    speculative: int = field(default=0)
    """Beside the total."""

    def add(self, header: bytes, what: str, *, data_bytes: int | None = None) -> None:
        """Add the tensors of one file. ``data_bytes``: what the file has after its header, if that is known.

        Raises:
            ModelError: the header is no JSON, or a tensor lies outside of the file.
        """
        for name, entry in parse_json(header, f"the header of {what}").items():
            if name != "__metadata__":
                self._add(name, _bytes_of(name, entry, what, data_bytes))
        if self.total > MAX_BYTES:
            invalid(f"the tensors of {what} have {self.total} bytes")

    def _add(self, name: str, size: int) -> None:
        if is_speculative(name, self.layers):
            self.speculative += size
            return
        self.total += size
        if _is_encoder(name):
            self.encoder += size
        elif ".experts." in name:
            self.experts += size
        elif "embed_tokens" in name or "tok_embeddings" in name or name.endswith("wte.weight"):
            self.embedding += size
        elif name.startswith(("lm_head", "output.")) or name.endswith("lm_head.weight"):
            self.head += size

    def weights(self) -> LoadedWeights:
        """What was added up, as exact as it gets.

        Raises:
            ModelError: there is nothing.
        """
        if self.total == 0:
            invalid("the safetensors files hold no tensors that vLLM would load")
        return LoadedWeights(
            total_bytes=self.total,
            source=WeightsSource.HEADERS,
            embedding_bytes=self.embedding or None,
            head_bytes=self.head or None,
            expert_bytes=self.experts or None,
            encoder_bytes=self.encoder or None,
        )


@dataclass(slots=True)
class Index:
    """What a ``model.safetensors.index.json`` says, read piece by piece: large ones do not fit a document's bound."""

    layers: int
    shards: set[str] = field(default_factory=set)
    total_bytes: int | None = None
    """``metadata.total_size``."""
    holds_speculative: bool = False
    _rest: bytes = b""
    _read: int = 0
    _gap: int = 0

    def feed(self, part: bytes, what: str) -> None:
        """Read on.

        Raises:
            ModelError: it is too long, names too many files, or a name is no plain file name.
        """
        self._read += len(part)
        if self._read > MAX_INDEX_BYTES:
            invalid(f"{what} has more than {MAX_INDEX_BYTES} bytes")
        text = self._rest + part
        done = 0
        for entry in _ENTRY.finditer(text):
            self._entry(entry.group(1), entry.group(2), what)
            done = entry.end()
        self._gap = self._gap + len(part) if done == 0 else len(text) - done
        if self._gap > _MAX_GAP_BYTES:
            invalid(f"{what} is no index of safetensors: in {self._gap} bytes it names no tensor")
        total = _TOTAL.search(text)
        # A number at the very end may go on in the next part.
        if total is not None and total.end() < len(text):
            self.total_bytes = int(total.group(1))
        self._rest = text[max(done, len(text) - _LONGEST_ENTRY) :]

    def names(self, what: str) -> tuple[str, ...]:
        """The files, sorted, once everything was read.

        Raises:
            ModelError: it names none.
        """
        if not self.shards:
            invalid(f"{what} names no *{_SAFETENSORS.decode()} file (weight_map)")
        return tuple(sorted(self.shards))

    def _entry(self, tensor: bytes, file: bytes, what: str) -> None:
        if not file.endswith(_SAFETENSORS):
            return
        name = file.decode(errors="replace")
        if name not in self.shards:
            if not _NAME.match(name) or ".." in name:
                invalid(f"{what} names a file {name[:100]!r}, which is not a plain file name")
            self.shards.add(name)
            if len(self.shards) > MAX_SHARDS:
                invalid(f"{what} names more than {MAX_SHARDS} files")
        if not self.holds_speculative and is_speculative(tensor.decode(errors="replace"), self.layers):
            self.holds_speculative = True


def read_index(parts: Iterable[bytes], what: str, *, layers: int) -> Index:
    """An index from its parts."""
    index = Index(layers)
    for part in parts:
        index.feed(part, what)
    return index


def _bytes_of(name: str, entry: Any, what: str, data_bytes: int | None) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(begin), int(end)] if 0 <= begin <= end <= (MAX_BYTES if data_bytes is None else data_bytes):
            return end - begin
    return invalid(f"{what}: the tensor {name[:100]!r} has the place {str(offsets)[:60]}, which is not in the file")


def _is_encoder(name: str) -> bool:
    return any(part in name for part in ("vision", "visual", "audio_tower", "mm_projector", "multi_modal", "vpm."))
