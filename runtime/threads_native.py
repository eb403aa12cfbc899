"""The thread pool: native functions, see `lowering.native.language`; `threads` loads and drives them.

A caller that holds `busy` describes a job in the pool, makes `epoch` odd, works itself, makes it even again,
and waits until nobody is `inside`. A worker that sees an odd epoch goes inside, looks at the epoch again, and
works if it is still the same; so a caller never waits for a worker that has not joined it, asleep or late.
The index range is cut into chunks. Each participant has a row of neighbouring ones, the same in every job of
that size, so that its cache keeps what it needs; who has finished its row takes from those of the others.

A failure keeps all chunks after its own from being begun, and is told if none before it fails: which error a
kernel reports does not depend on the number of threads.

Workers spin for `spin` nanoseconds after a job, or less where that turns out to cost others their processor,
then sleep, each on its own word `asleep`.
"""

# ruff: noqa: F821
from __future__ import annotations

from collections.abc import Callable

from ingot.lowering.native.language import (
    Pointer,
    Struct,
    address,
    at,
    atomic_add,
    atomic_exchange,
    atomic_load,
    atomic_store,
    cast,
    compare_exchange,
    fence,
    function,
    i32,
    i64,
    local,
    native,
    null,
    offset,
    pause,
    ptr,
    stack,
    u32,
    u64,
)

CHUNKS_EACH = 16
"""Chunks of each participant, if they are neither too small nor too long."""
LONG = 10_000_000_000
"""Picoseconds after which a chunk should end: whether to go on is asked between chunks."""
GRAIN = 3_000_000
"""Picoseconds of work that are worth a chunk of their own."""
WAKE = 30_000_000
"""Picoseconds of work that are worth waking threads for; less only if a job has just been, which says that
more may come."""
POLL_EVERY = 50_000_000
"""Nanoseconds between two questions whether to go on."""
BURST = 32
"""Looks at a word between two looks at the clock."""
PREEMPTED = 30_000
"""Nanoseconds. Who spins and finds a burst taking so long has lost its processor to somebody else."""
LEAST_SPIN = 1_000
FORKED = 20
"""Code: the process is a child forked, by a signal's handler, in the middle of this kernel."""
END = -1
FUTEX_WAIT, FUTEX_WAKE = 128, 129

CONTEXT_WORDS = 15
SLOTS, SLOT = 2048, 512
MUTEX, CONDITION, SIGNALS, ATTRIBUTES = 1024, 1152, 1280, 1408
"""Byte offsets of the slots and of the system's structures in the pool, and the bytes of a slot."""


class Error(Struct):
    code: i32
    kernel: i32
    value0: i64
    value1: i64
    value2: i64
    value3: i64


class Context(Struct):
    version: u32
    context_size: u32
    dims: ptr
    strides: ptr
    workspace: ptr
    constants: ptr
    parallel_for: ptr
    host_call: ptr
    poll: Callable[[Context], i32]
    error: Error
    kernels: ptr
    host: ptr
    scratch: ptr
    scratch_bytes: i64
    threads: i64
    pool: Pool


class Time(Struct):
    seconds: i64
    nanoseconds: i64


class Pool(Struct):
    create: Callable[[ptr, ptr, ptr, ptr], i32]
    mask: Callable[[i32, ptr, ptr], i32]
    clock: Callable[[i32, Time], i32]
    syscall: Callable[[i64, ptr, i64, i64, ptr, ptr, i64], i64]
    lock_mutex: Callable[[ptr], i32]
    unlock_mutex: Callable[[ptr], i32]
    wait: Callable[[ptr, ptr], i32]
    broadcast: Callable[[ptr], i32]
    futex: i64
    clock_id: i32
    set_mask: i32
    threads: i64
    spin: i64
    stopping: i32
    failed: i32
    epoch: i64 = at(256)
    team: i64
    context: Context = at(384)
    kernel: Callable[[Context, ptr, ptr, i64, i64], i32]
    buffers: ptr
    params: ptr
    extent: i64
    chunk: i64
    inside: i32 = at(512)
    waiting: i32
    limit: i64 = at(640)
    code: i32
    lock: i32
    busy: i32 = at(768)
    generation: i32
    last: i64
    created: i64
    alive: i64


class Slot(Struct):
    """A participant; the caller is number 0. `next` to `end` are its chunks that nobody has taken."""

    next: i64
    end: i64
    number: i64 = at(128)
    pool: Pool
    budget: i64
    asleep: i32 = at(192)
    context: u64 = at(256)
    error: u64 = at(384)


# -- for Python -------------------------------------------------------------------------------------


@native
def setup(pool: Pool, functions: Pointer[u64], numbers: Pointer[i64]) -> None:
    """Fill in zeroed memory: addresses of the functions that begin `Pool`, then `futex`, `clock_id`,
    `set_mask`. A null `syscall`: mutex and condition are used instead."""
    words = cast(Pointer[u64], pool)
    for i in range(8):
        words[i] = functions[i]
    pool.futex = numbers[0]
    pool.clock_id = i32(numbers[1])
    pool.set_mask = i32(numbers[2])


@native
def resize(pool: Pool, threads: i64, spin: i64) -> None:
    """From the next kernel on, use so many threads; workers that are too many sleep."""
    atomic_store(address(pool.threads), threads)
    atomic_store(address(pool.spin), spin)
    atomic_store(address(pool.failed), 0)


@native
def stop(pool: Pool) -> None:
    """Tell the workers to end; there will be no new ones. Does not wait."""
    atomic_exchange(address(pool.stopping), 1)
    fence()
    for k in range(1, atomic_load(address(pool.created)) + 1):
        _wake(pool, _slot(pool, k))


@native
def reset(pool: Pool) -> None:
    """In the child of a fork: there are no workers, and nobody is in the middle of anything."""
    for k in range(pool.created + 1):
        _slot(pool, k).asleep = 0
    pool.stopping = 0
    pool.failed = 0
    pool.epoch = 0
    pool.inside = 0
    pool.waiting = 0
    pool.lock = 0
    pool.busy = 0
    pool.last = 0
    pool.created = 0
    pool.alive = 0
    pool.generation += 1


@native
def workers(pool: Pool) -> i64:
    """How many threads there are beside the callers'."""
    return atomic_load(address(pool.alive))


@native
def failure(pool: Pool) -> i64:
    """The system's error number if it refused to make a thread, else 0."""
    return i64(atomic_load(address(pool.failed)))


# -- the caller -------------------------------------------------------------------------------------


@native
def parallel_for(
    context: Context,
    kernel: Callable[[Context, ptr, ptr, i64, i64], i32],
    buffers: ptr,
    params: ptr,
    extent: i64,
    work: i64,
) -> i32:
    """Run a kernel of about `work` picoseconds over [0, extent), with as many threads as are worth it; alone
    while another caller uses the pool."""
    pool = context.pool
    pieces = _max(_min(work // GRAIN, extent), 1)
    threads = _min(_min(context.threads, atomic_load(address(pool.threads))), pieces)
    if threads < 2 or compare_exchange(address(pool.busy), 0, 1) != 0:
        return _alone(context, kernel, buffers, params, extent, pieces)
    threads = _ready(pool, threads, work)
    if threads < 2:
        atomic_store(address(pool.busy), 0)
        return _alone(context, kernel, buffers, params, extent, pieces)
    chunks = _min(pieces, _max(threads * CHUNKS_EACH, work // LONG))
    chunks -= chunks % threads
    size = (extent - 1) // chunks + 1
    chunks = (extent - 1) // size + 1
    pool.context = context
    pool.kernel = kernel
    pool.buffers = buffers
    pool.params = params
    pool.extent = extent
    pool.chunk = size
    pool.limit = chunks
    pool.code = 0
    for k in range(threads):
        slot = _slot(pool, k)
        slot.next = chunks * k // threads
        slot.end = chunks * (k + 1) // threads
    atomic_store(address(pool.team), threads)
    atomic_add(address(pool.epoch), 1)
    fence()
    for k in range(1, threads):
        _wake(pool, _slot(pool, k))
    if _work(pool, _slot(pool, 0)) == FORKED:
        return FORKED
    atomic_add(address(pool.epoch), 1)
    fence()
    _join(pool)
    code = pool.code
    atomic_store(address(pool.busy), 0)
    return code


@native
def _ready(pool: Pool, threads: i64, work: i64) -> i64:
    """How many threads to use; 1 when the work is too little to wake anybody for. Makes missing workers."""
    now = _now(pool)
    since = now - pool.last
    pool.last = now
    if atomic_load(address(pool.stopping)) != 0:
        return 1
    worth = work >= WAKE or since < pool.spin
    if worth and pool.created < threads - 1 and pool.failed == 0:
        _create(pool, threads - 1)
    threads = _min(threads, pool.created + 1)
    if worth:
        return threads
    awake = 1
    while awake < threads and atomic_load(address(_slot(pool, awake).asleep)) == 0:
        awake += 1
    return awake


@native
def _create(pool: Pool, wanted: i64) -> None:
    """Make workers until there are `wanted`, with all signals blocked: they are for Python's main thread."""
    before = stack(u64, 16)
    thread = stack(u64, 1)
    pool.mask(pool.set_mask, offset(pool, SIGNALS), before)
    while pool.created < wanted:
        number = pool.created + 1
        slot = _slot(pool, number)
        slot.number = number
        slot.pool = pool
        slot.asleep = 0
        slot.budget = pool.spin
        atomic_add(address(pool.alive), 1)
        code = pool.create(thread, offset(pool, ATTRIBUTES), function(_worker), slot)
        if code != 0:
            atomic_add(address(pool.alive), -1)
            pool.failed = code
            break
        atomic_store(address(pool.created), number)
    pool.mask(pool.set_mask, before, null)


@native
def _alone(
    context: Context,
    kernel: Callable[[Context, ptr, ptr, i64, i64], i32],
    buffers: ptr,
    params: ptr,
    extent: i64,
    pieces: i64,
) -> i32:
    """Run a kernel on this thread; in pieces if there is somebody to ask whether to go on."""
    if context.poll == null:
        return kernel(context, buffers, params, 0, extent)
    asked = _now(context.pool)
    size = (extent - 1) // pieces + 1
    begin = 0
    while begin < extent:
        end = _min(begin + size, extent)
        code = kernel(context, buffers, params, begin, end)
        if code != 0:
            return code
        begin = end
        now = _now(context.pool)
        if now - asked > POLL_EVERY:
            code = context.poll(context)
            if code != 0:
                return code
            asked = now
    return 0


@native
def _join(pool: Pool) -> None:
    """Wait until nobody is inside."""
    start = _now(pool)
    while True:
        for _ in range(BURST):
            if atomic_load(address(pool.inside)) == 0:
                return
            pause()
        if _now(pool) - start > pool.spin:
            break
    atomic_exchange(address(pool.waiting), 1)
    fence()
    while True:
        inside = atomic_load(address(pool.inside))
        if inside == 0:
            break
        _sleep(pool, address(pool.inside), inside)
    atomic_store(address(pool.waiting), 0)


# -- everybody --------------------------------------------------------------------------------------


@native
def _work(pool: Pool, slot: Slot) -> i32:
    """Run chunks until there are none to begin. The caller asks now and then whether to go on; FORKED if it
    finds itself in another process."""
    me = slot.number
    context = cast(Context, address(slot.context))
    _enter(pool, slot, context)
    team = pool.team
    generation = pool.generation
    asked = _now(pool) if me == 0 else 0
    for turn in range(team):
        number = me + turn
        if number >= team:
            number -= team
        owner = _slot(pool, number)
        while atomic_load(address(owner.next)) < owner.end:
            chunk = atomic_add(address(owner.next), 1)
            if chunk >= owner.end or chunk >= atomic_load(address(pool.limit)):
                break
            begin = chunk * pool.chunk
            end = _min(begin + pool.chunk, pool.extent)
            code = pool.kernel(context, pool.buffers, pool.params, begin, end)
            if me == 0 and atomic_load(address(pool.generation)) != generation:
                return FORKED
            if code != 0:
                _fail(pool, chunk, code, cast(Error, address(slot.error)))
            if me == 0 and context.poll != null:
                now = _now(pool)
                if now - asked > POLL_EVERY:
                    code = context.poll(context)
                    if atomic_load(address(pool.generation)) != generation:
                        return FORKED
                    if code != 0:
                        _fail(pool, -1, code, null)
                    asked = now
    return 0


@native
def _enter(pool: Pool, slot: Slot, context: Context) -> None:
    """A participant's own copy of the context."""
    source = cast(Pointer[u64], pool.context)
    copy = cast(Pointer[u64], context)
    for i in range(CONTEXT_WORDS):
        copy[i] = source[i]
    context.parallel_for = null
    context.error = cast(Error, address(slot.error))
    if slot.number != 0:
        context.scratch = offset(context.scratch, slot.number * context.scratch_bytes)
        context.host_call = null
        context.poll = cast(Callable[[Context], i32], function(_stopped))  # type: ignore[arg-type]


@native
def _stopped(context: Context) -> i32:
    """What workers are told when they ask whether to go on: only the caller may ask the host."""
    pool = context.pool
    return pool.code if atomic_load(address(pool.limit)) < 0 else 0


@native
def _fail(pool: Pool, chunk: i64, code: i32, record: Error) -> None:
    """Begin no chunk from this one on. Of several failures the one of the first chunk is kept."""
    while compare_exchange(address(pool.lock), 0, 1) != 0:
        pause()
    if chunk < pool.limit:
        pool.code = code
        atomic_store(address(pool.limit), chunk)
        if record != null:
            error = pool.context.error
            error.code = record.code
            error.value0 = record.value0
            error.value1 = record.value1
            error.value2 = record.value2
            error.value3 = record.value3
    atomic_store(address(pool.lock), 0)


@native
def _slot(pool: Pool, number: i64) -> Slot:
    return cast(Slot, offset(pool, SLOTS + number * SLOT))


@native
def _now(pool: Pool) -> i64:
    """Nanoseconds."""
    time = local(Time)
    pool.clock(pool.clock_id, time)
    return time.seconds * 1_000_000_000 + time.nanoseconds


@native
def _min(a: i64, b: i64) -> i64:
    return a if a < b else b


@native
def _max(a: i64, b: i64) -> i64:
    return a if a > b else b


# -- workers ----------------------------------------------------------------------------------------


@native
def _worker(slot: Slot) -> ptr:
    pool = slot.pool
    seen = _next_job(pool, slot, 0)
    while seen != END:
        atomic_add(address(pool.inside), 1)
        fence()
        if atomic_load(address(pool.epoch)) == seen and slot.number < pool.team:
            _work(pool, slot)
        before = atomic_add(address(pool.inside), -1)
        fence()
        if before == 1 and atomic_load(address(pool.waiting)) != 0:
            _rouse(pool, address(pool.inside))
        seen = _next_job(pool, slot, seen)
    atomic_add(address(pool.alive), -1)
    return null


@native
def _next_job(pool: Pool, slot: Slot, seen: i64) -> i64:
    """The epoch of the next job, or END. Spins, then sleeps.

    The time to spin halves when a spinning thread loses its processor, which somebody else then needs more,
    and doubles when it turns out to have been too short."""
    spin = atomic_load(address(pool.spin))
    slot.budget = _min(slot.budget, spin)
    while True:
        start = _now(pool)
        last = start
        while last - start <= slot.budget:
            for _ in range(BURST):
                epoch = _offered(pool, slot, seen)
                if epoch != seen:
                    return epoch
                pause()
            now = _now(pool)
            if now - last > PREEMPTED:
                slot.budget = _min(_max(slot.budget // 2, LEAST_SPIN), spin)
            last = now
        atomic_exchange(address(slot.asleep), 1)
        fence()
        epoch = _offered(pool, slot, seen)
        if epoch != seen:
            atomic_store(address(slot.asleep), 0)
            return epoch
        while atomic_load(address(slot.asleep)) == 1:
            _sleep(pool, address(slot.asleep), 1)
        if _now(pool) - start < spin:
            slot.budget = _min(_max(slot.budget * 2, LEAST_SPIN), spin)


@native
def _offered(pool: Pool, slot: Slot, seen: i64) -> i64:
    """A new epoch with work for this worker, or END, or `seen`."""
    epoch = atomic_load(address(pool.epoch))
    if atomic_load(address(pool.stopping)) != 0:
        return END
    if epoch % 2 == 0 or slot.number >= atomic_load(address(pool.team)):
        return seen
    return epoch


@native
def _wake(pool: Pool, slot: Slot) -> None:
    asleep = address(slot.asleep)
    if atomic_load(asleep) == 1 and atomic_exchange(asleep, 0) == 1:
        _rouse(pool, asleep)


@native
def _sleep(pool: Pool, word: Pointer[i32], value: i32) -> None:
    """Until `_rouse`, unless the word has another value; may return early."""
    if pool.syscall != null:
        pool.syscall(pool.futex, word, FUTEX_WAIT, i64(value), null, null, 0)
        return
    pool.lock_mutex(offset(pool, MUTEX))
    if atomic_load(word) == value:
        pool.wait(offset(pool, CONDITION), offset(pool, MUTEX))
    pool.unlock_mutex(offset(pool, MUTEX))


@native
def _rouse(pool: Pool, word: Pointer[i32]) -> None:
    """Wake who sleeps on a word that has just changed."""
    if pool.syscall != null:
        pool.syscall(pool.futex, word, FUTEX_WAKE, 1, null, null, 0)
        return
    pool.lock_mutex(offset(pool, MUTEX))
    pool.broadcast(offset(pool, CONDITION))
    pool.unlock_mutex(offset(pool, MUTEX))
