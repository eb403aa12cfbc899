"""From a relocatable ELF64 object to a flat image: a minimal linker for what our own code generation
produces.

Sections that are mapped and executable become text, those that are mapped and read-only become rodata;
relocations must be relative and between the two. Anything else (writable data, undefined symbols, absolute
addresses, an unknown relocation) is refused, because such code could not run from a flat mapping.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

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


@record
class _Section:
    number: int
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def flatten(elf: bytes, target_key: str, page: int) -> Image:
    """The image of an object file; its entries are the global functions. Raises LinkError."""
    object = _Object(elf)
    return object.image([s for s in object.sections if _mapped(s)], None, target_key, page)


def split(elf: bytes, parts: Sequence[Mapping[str, str]], target_key: str, page: int) -> list[Image]:
    """An image for each of `parts`: of the functions it names, under the names it gives them, with all
    sections that they refer to. Functions must be in sections of their own. Raises LinkError."""
    object = _Object(elf)
    return [object.image(object.needed(part), part, target_key, page) for part in parts]


class _Object:
    """An object file: its sections, symbols, and relocations by the number of the section they change."""

    def __init__(self, elf: bytes) -> None:
        self.elf = elf
        self.machine, self.sections = _sections(elf)
        for section in self.sections:
            if _mapped(section) and section.flags & _WRITE and section.size:
                raise LinkError(f"[codegen] the object has writable data in {section.name}.")
        self.symbols = _symbols(elf, self.sections)
        self.relocations: dict[int, _Section] = {}
        for section in self.sections:
            if section.kind in (_REL, _RELA) and _mapped(self.sections[section.info]):
                if section.kind == _REL:
                    raise LinkError(f"[codegen] relocations without addend in {section.name}.")
                self.relocations[section.info] = section

    def needed(self, names: Collection[str]) -> list[_Section]:
        """The sections that functions are in, and all that these refer to."""
        found = {s.section for s in self.symbols if s.is_entry and s.name in names}
        stack = list(found)
        while stack:
            rela = self.relocations.get(stack.pop())
            if rela is not None:
                goals = {self.symbols[info >> 32].section for _, info, _ in _entries(self.elf, rela)} - found
                found |= goals
                stack += goals
        return [s for i, s in enumerate(self.sections) if i in found and _mapped(s)]

    def image(
        self, sections: list[_Section], names: Mapping[str, str] | None, target_key: str, page: int
    ) -> Image:
        """The image of some sections; its entries are all global functions, or those in `names`."""
        text = [s for s in sections if s.flags & _EXECINSTR]
        rodata = [s for s in sections if not s.flags & _EXECINSTR]
        address: dict[int, int] = {}
        text_size = _place(text, 0, address)
        rodata_base = round_up(text_size, page)
        rodata_size = _place(rodata, rodata_base, address) - rodata_base
        memory = bytearray(rodata_base + rodata_size)
        for section in text + rodata:
            at = address[section.number]
            memory[at : at + section.size] = self.elf[section.offset : section.offset + section.size]
        for section in text + rodata:
            rela = self.relocations.get(section.number)
            if rela is not None:
                self.relocate(rela, address, memory)
        entries = {
            s.name if names is None else names[s.name]: address[s.section] + s.value
            for s in self.symbols
            if s.is_entry and s.section in address and (names is None or s.name in names)
        }
        return Image(target_key, page, bytes(memory[:text_size]), bytes(memory[rodata_base:]), entries)

    def relocate(self, rela: _Section, address: Mapping[int, int], memory: bytearray) -> None:
        for offset, info, addend in _entries(self.elf, rela):
            symbol, kind = self.symbols[info >> 32], info & 0xFFFFFFFF
            if symbol.section not in address:
                raise LinkError(f"[codegen] a relocation to {symbol.name!r}, which is not in the image.")
            place, goal = address[rela.info] + offset, address[symbol.section] + symbol.value + addend
            if self.machine == "x86_64":
                _relocate_x86(memory, kind, place, goal)
            else:
                _relocate_arm(memory, kind, place, goal)


def _entries(elf: bytes, rela: _Section) -> Iterable[tuple[int, int, int]]:
    return struct.iter_unpack("<QQq", elf[rela.offset : rela.offset + rela.size])


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
        _Section(i, _string(elf, strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(1, r[8]))
        for i, r in enumerate(raw)
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


def _place(sections: list[_Section], at: int, address: dict[int, int]) -> int:
    for section in sections:
        address[section.number] = round_up(at, section.align)
        at = address[section.number] + section.size
    return at


@record
class _Symbol:
    name: str
    section: int  # 0: none
    value: int
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
        inside = 0 < where < 0xFF00 and _mapped(sections[where])
        is_entry = inside and info >> 4 == _GLOBAL and info & 15 == _FUNC
        symbols.append(_Symbol(name, where if inside else 0, value, is_entry))
    return symbols


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
