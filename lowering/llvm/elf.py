"""From a relocatable ELF64 object to a flat image: a minimal linker for what our own code generation
produces.

Sections that are mapped and executable become text, those that are mapped and read-only become rodata;
relocations must be relative and between the two. Anything else (writable data, undefined symbols, absolute
addresses, an unknown relocation) is refused, because such code could not run from a flat mapping.
"""

from __future__ import annotations

import struct

from ingot.lowering.image import Image, round_up
from ingot.tracer.record import record

_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL = 1, 2, 4, 8, 9
_WRITE, _ALLOC, _EXECINSTR = 1, 2, 4
_UNDEFINED, _ABSOLUTE, _COMMON = 0, 0xFFF1, 0xFFF2
_GLOBAL, _FUNC = 1, 2
_MACHINES = {62: "x86_64", 183: "aarch64"}
_IGNORED = (".eh_frame", ".note.", ".llvm_addrsig", ".comment")

_X86_PC32, _X86_PLT32 = 2, 4
_ARM_PREL32, _ARM_ADR_PAGE, _ARM_ADD_LO12 = 261, 275, 277
_ARM_JUMP26, _ARM_CALL26 = 282, 283
_ARM_LOAD_SHIFT = {278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # LDST8/16/32/64/128_ABS_LO12_NC


class LinkError(RuntimeError):
    """The object needs something that a flat image cannot hold."""


@record(frozen=False)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    address: int = -1  # in the image, once placed


def flatten(elf: bytes, target_key: str, page: int) -> Image:
    """The image of an object file; its entries are the global functions. Raises LinkError."""
    machine, sections = _sections(elf)
    text = [s for s in sections if _mapped(s) and s.flags & _EXECINSTR]
    rodata = [s for s in sections if _mapped(s) and not s.flags & _EXECINSTR]
    for section in rodata:
        if section.flags & _WRITE and section.size:
            raise LinkError(f"[codegen] the object has writable data in {section.name}.")
    text_size = _place(text, 0)
    rodata_base = round_up(text_size, page)
    rodata_size = _place(rodata, rodata_base) - rodata_base
    memory = bytearray(rodata_base + rodata_size)
    for section in text + rodata:
        memory[section.address : section.address + section.size] = elf[
            section.offset : section.offset + section.size
        ]
    symbols = _symbols(elf, sections)
    for section in sections:
        if section.kind == _REL and sections[section.info].address >= 0:
            raise LinkError(f"[codegen] relocations without addend in {section.name}.")
        if section.kind == _RELA and sections[section.info].address >= 0:
            _relocate(elf, section, sections[section.info].address, symbols, memory, machine)
    entries = {s.name: s.address for s in symbols if s.is_entry}
    return Image(target_key, page, bytes(memory[:text_size]), bytes(memory[rodata_base:]), entries)


def _sections(elf: bytes) -> tuple[str, list[_Section]]:
    if elf[:6] != b"\x7fELF\x02\x01":
        raise LinkError("[codegen] not a little-endian ELF64 object.")
    kind, machine = struct.unpack_from("<HH", elf, 16)
    if kind != 1 or machine not in _MACHINES:
        raise LinkError(f"[codegen] ELF type {kind} for machine {machine} is not supported.")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    raw = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    strings = raw[names][4]
    sections = [
        _Section(_string(elf, strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(1, r[8])) for r in raw
    ]
    return _MACHINES[machine], sections


def _string(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()


def _mapped(section: _Section) -> bool:
    if not section.flags & _ALLOC or section.name.startswith(_IGNORED) or not section.size:
        return False
    if section.kind != _PROGBITS:
        raise LinkError(f"[codegen] the object has a section {section.name} of kind {section.kind}.")
    return True


def _place(sections: list[_Section], at: int) -> int:
    for section in sections:
        section.address = round_up(at, section.align)
        at = section.address + section.size
    return at


@record
class _Symbol:
    name: str
    address: int  # -1: not in the image
    is_entry: bool


def _symbols(elf: bytes, sections: list[_Section]) -> list[_Symbol]:
    table = next((s for s in sections if s.kind == _SYMTAB), None)
    if table is None:
        return []
    strings = sections[table.link].offset
    symbols = []
    for at in range(table.offset, table.offset + table.size, 24):
        name_at, info, _, where, value, _ = struct.unpack_from("<IBBHQQ", elf, at)
        name = _string(elf, strings + name_at)
        if where == _COMMON or (where == _UNDEFINED and name):
            raise LinkError(f"[codegen] undefined symbol {name!r}: the code would need a library.")
        inside = 0 < where < 0xFF00 and sections[where].address >= 0
        address = sections[where].address + value if inside else -1
        symbols.append(_Symbol(name, address, inside and info >> 4 == _GLOBAL and info & 15 == _FUNC))
    return symbols


def _relocate(
    elf: bytes, rela: _Section, base: int, symbols: list[_Symbol], memory: bytearray, machine: str
) -> None:
    for at in range(rela.offset, rela.offset + rela.size, 24):
        offset, info, addend = struct.unpack_from("<QQq", elf, at)
        symbol, kind = symbols[info >> 32], info & 0xFFFFFFFF
        if symbol.address < 0:
            raise LinkError(f"[codegen] a relocation to {symbol.name!r}, which is not in the image.")
        place, goal = base + offset, symbol.address + addend
        if machine == "x86_64":
            _relocate_x86(memory, kind, place, goal)
        else:
            _relocate_arm(memory, kind, place, goal)


def _relocate_x86(memory: bytearray, kind: int, place: int, goal: int) -> None:
    if kind not in (_X86_PC32, _X86_PLT32):
        raise LinkError(f"[codegen] x86-64 relocation type {kind} is not relative.")
    struct.pack_into("<i", memory, place, goal - place)


def _relocate_arm(memory: bytearray, kind: int, place: int, goal: int) -> None:
    """The image starts on a page, so page differences are those of offsets in the image."""
    if kind == _ARM_PREL32:
        struct.pack_into("<i", memory, place, goal - place)
        return
    (word,) = struct.unpack_from("<I", memory, place)
    if kind == _ARM_ADR_PAGE:
        pages = (goal >> 12) - (place >> 12)
        word = word & 0x9F00001F | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind == _ARM_ADD_LO12:
        word = word & ~(0xFFF << 10) | (goal & 0xFFF) << 10
    elif kind in _ARM_LOAD_SHIFT:
        shift = _ARM_LOAD_SHIFT[kind]
        if goal & ((1 << shift) - 1):
            raise LinkError(f"[codegen] a load of {1 << shift} bytes from a misaligned constant.")
        word = word & ~(0xFFF << 10) | ((goal & 0xFFF) >> shift) << 10
    elif kind in (_ARM_JUMP26, _ARM_CALL26):
        word = word & ~0x3FFFFFF | (goal - place) >> 2 & 0x3FFFFFF
    else:
        raise LinkError(f"[codegen] AArch64 relocation type {kind} is not supported.")
    struct.pack_into("<I", memory, place, word)
