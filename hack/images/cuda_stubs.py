#!/usr/bin/env python3
"""Write stand-ins for the CUDA libraries that PyPI's torch links, so that torch imports without 3.5 GB of CUDA.

    python3 cuda_stubs.py SITE_PACKAGES

For the local cluster's `runtime-cpu` image and its tests alone: the torch wheel of PyPI is built for CUDA and
binds every symbol of thirteen CUDA libraries at `import torch`, although a CPU server calls none of them. Each stand-in
carries the library's SONAME and the (versioned) symbols that torch's own libraries import from it; every function
returns `cudaErrorNoDevice`, so torch reports that no device is there. They are written beside torch's libraries, which
look there last: real CUDA wheels installed in the same environment keep precedence. Never use this in a product image.

Standard library only, no compiler and no binutils: the ELF files are read and written here. x86_64 Linux only.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

# ELF constants, System V ABI, "Object Files" and "Dynamic Linking".
PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 1, 4, 5, 6, 10, 11, 14
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = (
    0x6FFFFFF0,
    0x6FFFFFFC,
    0x6FFFFFFD,
    0x6FFFFFFE,
    0x6FFFFFFF,
)
SHT_DYNSYM, EM_X86_64, PAGE = 11, 62, 0x1000

# cudaErrorNoDevice of CUDA's driver_types.h; as a cuBLAS, cuDNN or NCCL status it is an unknown error: as good.
NO_DEVICE = 100
MESSAGE = b"CUDA stand-in library: no device"

# Symbols that torch imports without a version, told apart by the libraries' own prefixes (longest first).
PREFIXES = {
    "cusparseLt": "libcusparseLt.", "cusparse": "libcusparse.", "cusolver": "libcusolver.", "curand": "libcurand.",
    "cufft": "libcufft.", "cuFile": "libcufile.", "cupti": "libcupti.", "cudnn": "libcudnn.",
    "cublasLt": "libcublasLt.",
    "cublas": "libcublas.", "nccl": "libnccl.", "pnccl": "libnccl.", "nvrtc": "libnvrtc.",
    "nvshmem": "libnvshmem_host.",
}  # fmt: skip
STUBBED = ("libcu", "libnccl.", "libnvrtc.", "libnvshmem_host.")
DRIVER = "libcuda.so.1"  # belongs to the machine's driver, and is only looked for where there is one


@dataclass
class Imports:
    """What one shared object asks of others: library names, and (symbol, version, file of the version)."""

    needed: list[str] = field(default_factory=list)
    symbols: list[tuple[str, str, str]] = field(default_factory=list)


def _cstr(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def read_imports(path: Path) -> Imports:
    """Read NEEDED and the undefined dynamic symbols, with versions, of a 64-bit little-endian shared object."""
    with path.open("rb") as handle:
        head = handle.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return Imports()
        phoff, phentsize, phnum = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        handle.seek(phoff)
        table = handle.read(phentsize * phnum)
        segments = [struct.unpack_from("<IIQQQQQQ", table, i * phentsize) for i in range(phnum)]

        def at(address: int, size: int) -> bytes:
            for kind, _flags, offset, vaddr, _paddr, filesz, _memsz, _align in segments:
                if kind == PT_LOAD and vaddr <= address < vaddr + filesz:
                    handle.seek(offset + address - vaddr)
                    return handle.read(size)
            raise ValueError(f"{path}: no segment holds address {address:#x}")

        dynamic: dict[int, int] = {}
        needed: list[int] = []
        for kind, _flags, offset, _vaddr, _paddr, filesz, _memsz, _align in segments:
            if kind == PT_DYNAMIC:
                handle.seek(offset)
                for tag, value in struct.iter_unpack("<qQ", handle.read(filesz)):
                    if tag == 0:
                        break
                    if tag == DT_NEEDED:
                        needed.append(value)
                    else:
                        dynamic[tag] = value
        strings = at(dynamic[DT_STRTAB], dynamic[DT_STRSZ])
        count = _dynsym_count(handle, head)
        versions: dict[int, tuple[str, str]] = {}
        if DT_VERNEED in dynamic:
            need = at(dynamic[DT_VERNEED], 1 << 16)
            pos = 0
            for _ in range(dynamic[DT_VERNEEDNUM]):
                _v, aux_count, file_at, aux_off, next_off = struct.unpack_from("<HHIII", need, pos)
                aux = pos + aux_off
                for _ in range(aux_count):
                    _hash, _flags, other, name_at, aux_next = struct.unpack_from("<IHHII", need, aux)
                    versions[other] = (_cstr(strings, name_at), _cstr(strings, file_at))
                    aux += aux_next
                pos += next_off
        symbols = at(dynamic[DT_SYMTAB], 24 * count)
        versym = at(dynamic[DT_VERSYM], 2 * count) if DT_VERSYM in dynamic else bytes(2 * count)
        found = []
        for index, (name_at, _info, _other, shndx, _value, _size) in enumerate(struct.iter_unpack("<IBBHQQ", symbols)):
            if shndx == 0 and name_at:
                version, source = versions.get(struct.unpack_from("<H", versym, 2 * index)[0] & 0x7FFF, ("", ""))
                found.append((_cstr(strings, name_at), version, source))
        return Imports([_cstr(strings, n) for n in needed], found)


def _dynsym_count(handle: object, head: bytes) -> int:
    shoff = struct.unpack_from("<Q", head, 40)[0]
    shentsize, shnum = struct.unpack_from("<HH", head, 58)
    handle.seek(shoff)  # type: ignore[attr-defined]
    table = handle.read(shentsize * shnum)  # type: ignore[attr-defined]
    for i in range(shnum):
        fields = struct.unpack_from("<IIQQQQIIQQ", table, i * shentsize)
        if fields[1] == SHT_DYNSYM:
            return int(fields[5] // fields[9])
    raise ValueError("no dynamic symbol table")


def _elf_hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        if high:
            value ^= high >> 24
        value &= ~high & 0xFFFFFFFF
    return value


def _returns_text(symbol: str) -> bool:
    """Functions whose result is read as a pointer: error texts, and the handle of registered device code."""
    return symbol.endswith(("ErrorString", "ErrorName", "StatusString", "StatusName", "__cudaRegisterFatBinary"))


def write_stub(path: Path, soname: str, symbols: dict[str, str]) -> None:
    """Write a shared object that defines `symbols` (name -> version, '' for none) as functions that return an error."""
    strings = bytearray(b"\0")

    def intern(text: str) -> int:
        at = len(strings)
        strings.extend(text.encode() + b"\0")
        return at

    versions = sorted({v for v in symbols.values() if v})
    index_of = {v: i + 2 for i, v in enumerate(versions)}
    soname_at = intern(soname)
    names = sorted(symbols)
    name_at = [intern(n) for n in names]
    version_at = {v: intern(v) for v in versions}

    verdef = b""
    for i, (version, at) in enumerate([(soname, soname_at), *((v, version_at[v]) for v in versions)]):
        last = i == len(versions)
        flags, following = (1, 0 if last else 28) if i == 0 else (0, 0 if last else 28)
        verdef += struct.pack("<HHHHIII", 1, flags, i + 1, 1, _elf_hash(version.encode()), 20, following)
        verdef += struct.pack("<II", at, 0)
    versym = struct.pack("<H", 0) + b"".join(struct.pack("<H", index_of.get(symbols[n], 1)) for n in names)
    chains = [0] * (len(names) + 1)
    buckets = [0] * max(1, len(names) // 2)
    for i, name in enumerate(names, 1):
        slot = _elf_hash(name.encode()) % len(buckets)
        chains[i], buckets[slot] = buckets[slot], i
    table = struct.pack(f"<{2 + len(buckets) + len(chains)}I", len(buckets), len(chains), *buckets, *chains)

    # Layout: headers and tables, then code and text, all in one read-execute segment; the dynamic section in its own.
    offset = 64 + 4 * 56
    hash_at = offset
    dynsym_at = -(-(hash_at + len(table)) // 8) * 8
    dynstr_at = dynsym_at + 24 * (len(names) + 1)
    versym_at = -(-(dynstr_at + len(strings)) // 8) * 8
    verdef_at = -(-(versym_at + len(versym)) // 8) * 8
    code_at = -(-(verdef_at + len(verdef)) // 16) * 16
    error = b"\xb8" + struct.pack("<I", NO_DEVICE) + b"\xc3"  # mov eax, NO_DEVICE; ret
    pointer_at = code_at + 16
    text_at = pointer_at + 16
    pointer = b"\x48\x8d\x05" + struct.pack("<i", text_at - (pointer_at + 7)) + b"\xc3"  # lea rax, [rip+text]; ret
    body_end = text_at + len(MESSAGE) + 1
    dynsym = bytes(24)
    for name, at in zip(names, name_at, strict=True):
        value, size = (pointer_at, len(pointer)) if _returns_text(name) else (code_at, len(error))
        dynsym += struct.pack("<IBBHQQ", at, 0x12, 0, 1, value, size)  # global function
    dynamic_at = -(-body_end // PAGE) * PAGE
    entries = [
        (DT_SONAME, soname_at), (DT_HASH, hash_at), (DT_SYMTAB, dynsym_at), (DT_STRTAB, dynstr_at),
        (DT_STRSZ, len(strings)), (DT_SYMENT, 24), (DT_VERSYM, versym_at), (DT_VERDEF, verdef_at),
        (DT_VERDEFNUM, len(versions) + 1), (0, 0),
    ]  # fmt: skip
    dynamic = b"".join(struct.pack("<QQ", *e) for e in entries)

    image = bytearray(dynamic_at + len(dynamic))
    image[:64] = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 3, EM_X86_64, 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0
    )  # fmt: skip
    headers = [
        (PT_LOAD, PF_R | PF_X, 0, body_end, PAGE),
        (PT_LOAD, PF_R | PF_W, dynamic_at, len(dynamic), PAGE),
        (PT_DYNAMIC, PF_R | PF_W, dynamic_at, len(dynamic), 8),
        (PT_GNU_STACK, PF_R | PF_W, 0, 0, 16),
    ]
    for i, (kind, flags, at, size, align) in enumerate(headers):
        struct.pack_into("<IIQQQQQQ", image, 64 + 56 * i, kind, flags, at, at, at, size, size, align)
    parts = [
        (hash_at, table), (dynsym_at, dynsym), (dynstr_at, bytes(strings)), (versym_at, versym), (verdef_at, verdef),
        (code_at, error), (pointer_at, pointer), (text_at, MESSAGE), (dynamic_at, dynamic),
    ]  # fmt: skip
    for at, data in parts:
        image[at : at + len(data)] = data
    path.write_bytes(image)
    path.chmod(0o755)


def make_stubs(site_packages: Path) -> list[Path]:
    """Write a stand-in for every CUDA library that torch needs and that is not installed; return the files."""
    lib = site_packages / "torch" / "lib"
    if not (lib / "libtorch_cpu.so").exists():
        raise SystemExit(f"{lib} holds no torch: install the requirements first")
    wanted: dict[str, dict[str, str]] = {}
    imports = [read_imports(p) for p in sorted(lib.glob("lib*.so"))]
    for item in imports:
        for name in item.needed:
            if name.startswith(STUBBED) and name != DRIVER:
                wanted.setdefault(name, {})
    for item in imports:
        for symbol, version, source in item.symbols:
            if not source:
                prefix = next((p for p in PREFIXES if symbol.startswith(p)), None)
                source = next((n for n in wanted if prefix and n.startswith(PREFIXES[prefix])), "")
            if source in wanted:
                wanted[source][symbol] = version
    written = []
    for soname, symbols in sorted(wanted.items()):
        if any(site_packages.glob(f"nvidia/*/lib/{soname}")):
            continue
        write_stub(lib / soname, soname, symbols)
        written.append(lib / soname)
    return written


def main() -> None:
    """Command line: one argument, the site-packages directory that torch is installed in."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    written = make_stubs(Path(sys.argv[1]))
    print(f"cuda_stubs: {len(written)} stand-in libraries written: {' '.join(p.name for p in written)}")


if __name__ == "__main__":
    main()
