"""The dispatcher: native functions, see `lowering.native.language`; `dispatch` loads them and fills the
tables.

`call` stands in the vectorcall slot of a compiled or imported function. It writes what the arguments are,
their nesting, dtypes, shapes and Python scalars, as a row of words, looks for an entry of the function's
table that has the same words, and runs the entry's program on the memory of the arguments. Whatever it does
not know is left to `__call__`, which may then add an entry; so is a program that fails, since running it
again raises the right error.

A result is an `array` around a `Value` with its `Storage` and NumPy array. The entry keeps the last values it
made and gives one out again once nothing else refers to it or to its memory.

The structures are those of CPython and NumPy, and those that classes with `__slots__` have; `dispatch` checks
each offset before the first use.
"""

# ruff: noqa: F821
from __future__ import annotations

from collections.abc import Callable

from ingot.lowering.native.language import (
    Pointer,
    Struct,
    address,
    at,
    cast,
    i32,
    i64,
    local,
    native,
    null,
    offset,
    ptr,
    sizeof,
    stack,
)

WORDS, LEAVES, OUTPUTS, DEPTH = 1024, 256, 64, 32
"""Most words, arrays, results of a call, and levels of nesting."""
MOST_AXES = 30
ALIGNMENT = 64
AXES_AT = 1 << 58
"""The word of an array: the address of its dtype plus its axes plus 1, times this. Its extents follow."""
TUPLE, LIST, DICT, NONE, TRUE, FALSE, INT, FLOAT, STR, LEAF, STATIC = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
"""Words of nesting, with a count times `COUNT`: of dicts the keys follow, one before each value. INT, FLOAT
and STR are followed by value, bits, address. LEAF and STATIC, with its address, stand in descriptions of
results."""
COUNT = 256
READABLE, WRITEABLE = 257, 1281
"""NumPy's flags: contiguous and aligned, and writeable too."""
MOST_ARGUMENTS = (1 << 63) - 1


class Object(Struct):
    references: i64
    type: Type


class Type(Struct):
    call: Callable[[Object, Object, Object], Object] = at(128)


class Tuple(Struct):
    count: i64 = at(16)


class List(Struct):
    count: i64 = at(16)
    items: Pointer[ptr]


class Float(Struct):
    bits: i64 = at(16)


class NumpyArray(Struct):
    references: i64
    type: Type
    data: ptr
    axes: i32
    extents: Pointer[i64] = at(32)
    strides: Pointer[i64]
    base: Object
    dtype: Object
    flags: i32
    weak: ptr = at(72)


class Array(Struct):
    references: i64
    type: Type
    value: Value


class Value(Struct):
    references: i64
    type: Type
    aval: Object
    index: Object
    node: Object
    serial: Object
    storage: Storage
    trace: Object
    view: NumpyArray


class Storage(Struct):
    references: i64
    type: Type
    nbytes: Object
    pointer: Object
    frozen: Object
    owner: Object
    pinned: Object


class Function(Struct):
    """The two slots of `tracer.evaluate.Dispatched`."""

    references: i64
    type: Type
    call: ptr
    table: Table


class Api(Struct):
    """Functions of Python and NumPy, objects to compare with, and `running`: the threads in a transform."""

    dealloc: Callable[[Object], None]
    new_tuple: Callable[[i64], Object]
    new_list: Callable[[i64], Object]
    new_dict: Callable[[], Object]
    set_item: Callable[[Object, Object, Object], i32]
    next_item: Callable[[Object, ptr, ptr, ptr], i32]
    integer: Callable[[Object, ptr], i64]
    allocate: Callable[[Type, i64], Object]
    call_no_arguments: Callable[[Object], Object]
    save_thread: Callable[[], ptr]
    restore_thread: Callable[[ptr], None]
    new_array: Callable[[Type, Object, i32, ptr, ptr, ptr, i32, Object], NumpyArray]
    set_base: Callable[[NumpyArray, NumpyArray], i32]
    none: Object
    true: Object
    false: Object
    zero: Object
    array_type: Type
    value_type: Type
    storage_type: Type
    numpy_type: Type
    tuple_type: Type
    list_type: Type
    dict_type: Type
    int_type: Type
    float_type: Type
    str_type: Type
    float64: Object
    bytes: Object
    """The dtype of single bytes."""
    running: List
    value_weak: i64
    """Where a value has its list of weak references."""
    immortal: i64
    """From this reference count on, objects are not counted; 0: all are."""


class Table(Struct):
    api: Api
    slots: Pointer[ptr]
    """Entries by hash, open addressing; the number is a power of two."""
    mask: i64
    enabled: List
    owner: Object
    """The Python object that keeps this memory."""
    takes_float64: i64
    """Whether NumPy arrays of float64 stay what they are."""


class Entry(Struct):
    hash: i64
    n_words: i64
    words: Pointer[i64]
    code: Callable[[ptr, ptr, ptr], i32]
    context: ptr
    n_outputs: i64
    outputs: ptr
    tree: Pointer[i64]
    """How the results are nested; null for one array."""
    release: i64
    """Whether other Python threads may run meanwhile."""
    hold: i64
    """Whether Python code may run before the program has read its inputs."""
    exclusive: i64
    """Whether the context has memory for one call at a time."""
    busy: i64


class Output(Struct):
    aval: Object
    dtype: Object
    axes: i64
    extents: Pointer[i64]
    ring: List
    """Values to give out again; null where the memory is too much to keep."""
    turn: i64
    make: Object
    """Makes the NumPy array; null: NumPy does."""
    padded: i64
    """Bytes with room to begin at a multiple of `ALIGNMENT`; 0: wherever NumPy likes."""


class State(Struct):
    """The arguments, described."""

    api: Api
    takes_float64: i64
    words: Pointer[i64]
    n_words: i64
    pointers: Pointer[ptr]
    views: Pointer[ptr]
    n_leaves: i64


# -- references -------------------------------------------------------------------------------------


@native
def _hold(api: Api, x: Object) -> None:
    if api.immortal == 0 or x.references < api.immortal:
        x.references += 1


@native
def _drop(api: Api, x: Object) -> None:
    if api.immortal == 0 or x.references < api.immortal:
        x.references -= 1
        if x.references == 0:
            api.dealloc(x)


# -- arguments --------------------------------------------------------------------------------------


@native
def _view(api: Api, x: Object) -> NumpyArray:
    """The NumPy array with the contents of an evaluated `array`, or null."""
    value = cast(Array, x).value
    if value.type != api.value_type or value.trace != api.zero:
        return null
    view = value.view
    if value.storage == null or cast(Object, value.storage) == api.none:
        return null
    return view if view != null and view.type == api.numpy_type else null


@native
def _add_array(state: State, view: NumpyArray) -> bool:
    axes = i64(view.axes)
    at = state.n_words
    if view.flags & READABLE != READABLE or axes > MOST_AXES:
        return False
    if at + axes >= WORDS or state.n_leaves >= LEAVES:
        return False
    words = state.words
    words[at] = cast(i64, view.dtype) + (axes + 1) * AXES_AT
    extents = view.extents
    for i in range(axes):
        words[at + 1 + i] = extents[i]
    state.n_words = at + 1 + axes
    leaf = state.n_leaves
    state.pointers[leaf] = view.data
    state.views[leaf] = view
    state.n_leaves = leaf + 1
    return True


@native
def _add_word(state: State, word: i64) -> bool:
    if state.n_words >= WORDS:
        return False
    state.words[state.n_words] = word
    state.n_words += 1
    return True


@native
def _add(state: State, x: Object, depth: i64) -> bool:
    """Describe an argument; False for what the dispatcher does not take."""
    api = state.api
    type = x.type
    if type == api.array_type:
        view = _view(api, x)
        return view != null and _add_array(state, view)
    if type == api.numpy_type:
        array = cast(NumpyArray, x)
        if array.dtype == api.float64 and state.takes_float64 == 0:
            return False
        return _add_array(state, array)
    if x == api.none:
        return _add_word(state, NONE)
    if x == api.true:
        return _add_word(state, TRUE)
    if x == api.false:
        return _add_word(state, FALSE)
    if type == api.int_type:
        overflow = stack(i32, 1)
        value = api.integer(x, overflow)
        return overflow[0] == 0 and _add_word(state, INT) and _add_word(state, value)
    if type == api.float_type:
        return _add_word(state, FLOAT) and _add_word(state, cast(Float, x).bits)
    if type == api.str_type:
        return _add_word(state, STR) and _add_word(state, cast(i64, x))
    if depth >= DEPTH:
        return False
    if type == api.tuple_type:
        size = cast(Tuple, x).count
        if not _add_word(state, TUPLE + size * COUNT):
            return False
        return _add_all(state, cast(Pointer[ptr], offset(x, sizeof(Tuple))), size, depth + 1)
    if type == api.list_type:
        many = cast(List, x)
        if not _add_word(state, LIST + many.count * COUNT):
            return False
        return _add_all(state, many.items, many.count, depth + 1)
    if type == api.dict_type:
        return _add_dict(state, x, depth + 1)
    return False


@native
def _add_all(state: State, items: Pointer[ptr], size: i64, depth: i64) -> bool:
    for i in range(size):
        if not _add(state, cast(Object, items[i]), depth):
            return False
    return True


@native
def _add_dict(state: State, x: Object, depth: i64) -> bool:
    start = state.n_words
    if not _add_word(state, DICT):
        return False
    position = stack(i64, 1)
    key = stack(ptr, 1)
    value = stack(ptr, 1)
    position[0] = 0
    while state.api.next_item(x, position, key, value) != 0:
        state.words[start] += COUNT
        if not _add_word(state, cast(i64, key[0])) or not _add(state, cast(Object, value[0]), depth):
            return False
    return True


@native
def _hash(words: Pointer[i64], n: i64) -> i64:
    h = n
    for i in range(n):
        h = (h ^ words[i]) * 0x1E3779B97F4A7C15
        h = h ^ ((h >> 32) & 0xFFFFFFFF)
    return h


@native
def describe(api: Api, args: Object, kwargs: Object, takes_float64: i64, words: Pointer[i64]) -> i64:
    """The words of a call, in room for `WORDS` of them, and behind these the hash: their number, or -1 for
    what the dispatcher does not take."""
    pointers = stack(ptr, LEAVES)
    views = stack(ptr, LEAVES)
    state = local(State)
    state.api = api
    state.takes_float64 = takes_float64
    state.words = words
    state.n_words = 0
    state.pointers = pointers
    state.views = views
    state.n_leaves = 0
    size = cast(Tuple, args).count
    if not _add_word(state, size):
        return -1
    if not _add_all(state, cast(Pointer[ptr], offset(args, sizeof(Tuple))), size, 0):
        return -1
    position = stack(i64, 1)
    key = stack(ptr, 1)
    value = stack(ptr, 1)
    position[0] = 0
    while api.next_item(kwargs, position, key, value) != 0:
        words[0] += COUNT * WORDS
        if not _add_word(state, cast(i64, key[0])) or not _add(state, cast(Object, value[0]), 0):
            return -1
    words[WORDS] = _hash(words, state.n_words)
    return state.n_words


@native
def _find(table: Table, state: State) -> Entry:
    words = state.words
    n = state.n_words
    hash = _hash(words, n)
    slot = hash & table.mask
    while True:
        entry = cast(Entry, table.slots[slot])
        if entry == null:
            return null
        if entry.hash == hash and entry.n_words == n:
            same = 0
            known = entry.words
            while same < n and known[same] == words[same]:
                same += 1
            if same == n:
                return entry
        slot = (slot + 1) & table.mask


# -- results ----------------------------------------------------------------------------------------


@native
def _is_free(api: Api, output: Output, value: Value) -> bool:
    """Whether nothing but the ring knows a value, nothing but the value its memory, and it is as it was
    made."""
    if value.references != 1 or cast(Pointer[ptr], offset(value, api.value_weak))[0] != null:
        return False
    storage = value.storage
    view = value.view
    if storage == null or storage.type != api.storage_type or storage.references != 1:
        return False
    if view == null or view.type != api.numpy_type or view.weak != null or view.axes != i32(output.axes):
        return False
    if view.flags & WRITEABLE != WRITEABLE or view.dtype != output.dtype or value.node != api.none:
        return False
    for i in range(output.axes):
        if view.extents[i] != output.extents[i]:
            return False
    root = cast(NumpyArray, storage.owner)
    if root == view:
        return view.references == 2 and view.base == null
    if cast(Object, root) != view.base or root.type != api.numpy_type:
        return False
    return view.references == 1 and root.references == 2


@native
def _recycled(api: Api, output: Output) -> Value:
    """A value of the ring that nobody uses, held, or null; a new one may then have the place `turn`."""
    ring = output.ring
    if ring == null:
        return null
    for _ in range(ring.count):
        turn = output.turn
        value = cast(Value, ring.items[turn])
        turn += 1
        output.turn = turn if turn < ring.count else 0
        if value.type == api.value_type and _is_free(api, output, value):
            value.references += 1
            return value
    return null


@native
def _set(api: Api, place: Pointer[ptr], x: Object) -> None:
    """Let an empty place refer to an object."""
    _hold(api, x)
    place[0] = x


@native
def _new_value(api: Api, output: Output, view: NumpyArray) -> Value:
    """A value over a NumPy array, whose reference it takes; null, with an exception, without memory."""
    value = cast(Value, api.allocate(api.value_type, 0))
    storage = cast(Storage, api.allocate(api.storage_type, 0))
    if value == null or storage == null:
        _drop(api, cast(Object, view))
        if value != null:
            _drop(api, cast(Object, value))
        if storage != null:
            _drop(api, cast(Object, storage))
        return null
    root = cast(Object, view)
    if view.base != null:
        root = view.base
    storage.owner = root
    _hold(api, root)
    storage.pinned = api.false
    storage.frozen = api.false
    storage.pointer = api.none
    storage.nbytes = api.none
    value.aval = output.aval
    value.index = api.zero
    value.node = api.none
    value.serial = api.zero
    value.trace = api.zero
    _hold(api, api.false)
    _hold(api, api.false)
    _hold(api, api.none)
    _hold(api, api.none)
    _hold(api, api.none)
    _hold(api, api.zero)
    _hold(api, api.zero)
    _hold(api, api.zero)
    _hold(api, output.aval)
    value.storage = storage
    value.view = view
    ring = output.ring
    if ring != null:
        value.references += 1
        before = cast(Object, ring.items[output.turn])
        ring.items[output.turn] = value
        output.turn = output.turn + 1 if output.turn + 1 < ring.count else 0
        _drop(api, before)
    return value


@native
def _new_view(api: Api, output: Output) -> NumpyArray:
    """Memory for a result; null, with an exception, when there is none."""
    if output.make != null:
        return cast(NumpyArray, api.call_no_arguments(output.make))
    data: ptr = null
    root: NumpyArray = null
    if output.padded != 0:
        extent = stack(i64, 1)
        extent[0] = output.padded
        _hold(api, api.bytes)
        root = api.new_array(api.numpy_type, api.bytes, 1, extent, null, null, 0, null)
        if root == null:
            return null
        data = offset(root.data, -cast(i64, root.data) & (ALIGNMENT - 1))
    _hold(api, output.dtype)
    axes = i32(output.axes)
    # without memory of ours, flags would ask for Fortran's order
    flags = i32(0) if data == null else i32(WRITEABLE)
    view = api.new_array(api.numpy_type, output.dtype, axes, output.extents, null, data, flags, null)
    if root != null and view == null:
        _drop(api, cast(Object, root))
    elif root != null and api.set_base(view, root) != 0:
        _drop(api, cast(Object, view))
        return null
    return view


@native
def _wrapped(api: Api, value: Value) -> Object:
    """A new handle of a value, whose reference it takes."""
    handle = cast(Array, api.allocate(api.array_type, 0))
    if handle == null:
        _drop(api, cast(Object, value))
        return null
    handle.value = value
    return cast(Object, handle)


@native
def _nested(
    api: Api, words: Pointer[i64], at: Pointer[i64], leaves: Pointer[ptr], taken: Pointer[i64]
) -> Object:
    """The results as the function returns them; null, with an exception, without memory. `at` and `taken` say
    which word and which leaf come next."""
    word = words[at[0]]
    at[0] += 1
    kind = word % COUNT
    size = word // COUNT
    if kind == LEAF:
        taken[0] += 1
        return cast(Object, leaves[taken[0] - 1])
    if kind == STATIC:
        static = cast(Object, cast(ptr, words[at[0]]))
        at[0] += 1
        _hold(api, static)
        return static
    if kind == DICT:
        return _nested_dict(api, words, at, leaves, taken, size)
    made = api.new_tuple(size) if kind == TUPLE else api.new_list(size)
    if made == null:
        return null
    items = cast(Pointer[ptr], offset(made, sizeof(Tuple))) if kind == TUPLE else cast(List, made).items
    for i in range(size):
        items[i] = _nested(api, words, at, leaves, taken)
        if items[i] == null:
            _drop(api, made)
            return null
    return made


@native
def _nested_dict(
    api: Api, words: Pointer[i64], at: Pointer[i64], leaves: Pointer[ptr], taken: Pointer[i64], size: i64
) -> Object:
    made = api.new_dict()
    if made == null:
        return null
    for _ in range(size):
        key = cast(Object, cast(ptr, words[at[0]]))
        at[0] += 1
        value = _nested(api, words, at, leaves, taken)
        if value == null:
            _drop(api, made)
            return null
        failed = api.set_item(made, key, value)
        _drop(api, value)
        if failed != 0:
            _drop(api, made)
            return null
    return made


# -- calls ------------------------------------------------------------------------------------------


@native
def _in_python(api: Api, function: Function, args: Pointer[ptr], n: i64, names: Tuple) -> Object:
    """Call `__call__`. The function's table may be gone by now."""
    positional = api.new_tuple(n)
    if positional == null:
        return null
    items = cast(Pointer[ptr], offset(positional, sizeof(Tuple)))
    for i in range(n):
        _set(api, address(items[i]), cast(Object, args[i]))
    by_name: Object = null
    if names != null and names.count > 0:
        by_name = api.new_dict()
        if by_name == null:
            _drop(api, positional)
            return null
        keys = cast(Pointer[ptr], offset(names, sizeof(Tuple)))
        for i in range(names.count):
            if api.set_item(by_name, cast(Object, keys[i]), cast(Object, args[n + i])) != 0:
                _drop(api, positional)
                _drop(api, by_name)
                return null
    result = function.type.call(cast(Object, function), positional, by_name)
    _drop(api, positional)
    if by_name != null:
        _drop(api, by_name)
    return result


@native
def call(function: Function, args: Pointer[ptr], flags: i64, names: Tuple) -> Object:
    """The vectorcall function. It has a small frame, since `__call__` may come back here."""
    n = flags & MOST_ARGUMENTS
    table = function.table
    api = table.api
    if api.running.items[0] == cast(ptr, api.zero) and table.enabled.items[0] == cast(ptr, api.true):
        done = stack(i64, 1)
        done[0] = 0
        result = _natively(table, args, n, names, done)
        if done[0] != 0:
            return result
    return _in_python(api, function, args, n, names)


@native
def _natively(table: Table, args: Pointer[ptr], n: i64, names: Tuple, done: Pointer[i64]) -> Object:
    """The results; null with `done` for an exception, without for what Python does."""
    words = stack(i64, WORDS)
    pointers = stack(ptr, LEAVES)
    views = stack(ptr, LEAVES)
    state = local(State)
    api = table.api
    state.api = api
    state.takes_float64 = table.takes_float64
    state.words = words
    state.pointers = pointers
    state.views = views
    state.n_leaves = 0
    words[0] = n
    state.n_words = 1
    if n >= LEAVES or not _add_all(state, args, n, 0):
        return null
    if names != null:
        keys = cast(Pointer[ptr], offset(names, sizeof(Tuple)))
        words[0] += names.count * (COUNT * WORDS)
        for i in range(names.count):
            if not _add_word(state, cast(i64, keys[i])) or not _add(state, cast(Object, args[n + i]), 0):
                return null
    entry = _find(table, state)
    if entry == null or entry.busy != 0:
        return null
    owner = table.owner
    owner.references += 1
    result = _run(api, entry, state, done)
    _drop(api, owner)
    return result


@native
def _run(api: Api, entry: Entry, state: State, done: Pointer[i64]) -> Object:
    """The results of an entry's program; null with `done` for an exception, without for what Python does."""
    done[0] = 1
    values = stack(ptr, OUTPUTS)
    fresh = stack(ptr, OUTPUTS)
    memory = stack(ptr, OUTPUTS)
    n = entry.n_outputs
    if entry.hold != 0:
        _hold_all(api, state.views, state.n_leaves)
        entry.busy = entry.exclusive
    output = cast(Output, entry.outputs)
    made = 0
    failed = False
    while made < n and not failed:
        value = _recycled(api, output)
        view: NumpyArray = null
        if value == null:
            view = _new_view(api, output)
            failed = view == null
        else:
            view = value.view
        if not failed:
            values[made] = value
            fresh[made] = view
            memory[made] = view.data
            made += 1
        output = cast(Output, offset(output, sizeof(Output)))
    if not failed:
        code = i32(0)
        if entry.release != 0:
            thread = api.save_thread()
            code = entry.code(entry.context, state.pointers, memory)
            api.restore_thread(thread)
        else:
            code = entry.code(entry.context, state.pointers, memory)
        if code != 0:
            done[0] = 0
            failed = True
    if entry.hold != 0:
        entry.busy = 0
        _drop_all(api, state.views, state.n_leaves)
    if failed:
        for i in range(made):
            _drop(api, cast(Object, fresh[i]) if values[i] == null else cast(Object, values[i]))
        return null
    return _results(api, entry, values, fresh)


@native
def _results(api: Api, entry: Entry, values: Pointer[ptr], views: Pointer[ptr]) -> Object:
    n = entry.n_outputs
    output = cast(Output, entry.outputs)
    failed = False
    for i in range(n):
        value = cast(Value, values[i])
        if value == null and not failed:
            value = _new_value(api, output, cast(NumpyArray, views[i]))
        elif value == null:
            _drop(api, cast(Object, views[i]))
        if value != null:
            values[i] = _wrapped(api, value)
        failed = failed or values[i] == null
        output = cast(Output, offset(output, sizeof(Output)))
    if not failed and entry.tree == null:
        return cast(Object, values[0])
    taken = stack(i64, 1)
    taken[0] = 0
    result: Object = null
    if not failed:
        at = stack(i64, 1)
        at[0] = 0
        result = _nested(api, entry.tree, at, values, taken)
    if result == null:
        for i in range(taken[0], n):
            if values[i] != null:
                _drop(api, cast(Object, values[i]))
    return result


@native
def _hold_all(api: Api, objects: Pointer[ptr], n: i64) -> None:
    for i in range(n):
        _hold(api, cast(Object, objects[i]))


@native
def _drop_all(api: Api, objects: Pointer[ptr], n: i64) -> None:
    for i in range(n):
        _drop(api, cast(Object, objects[i]))


@native
def twice(context: ptr, inputs: Pointer[ptr], outputs: Pointer[ptr]) -> i32:
    """A program for the test at the start: doubles one integer, refuses 7."""
    given = cast(Pointer[i64], inputs[0])
    result = cast(Pointer[i64], outputs[0])
    result[0] = given[0] * 2
    return i32(1) if given[0] == 7 else i32(0)
