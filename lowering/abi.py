"""The calling convention of generated code, as data: the emitter, the runtime and C++ read it from here.

    int32_t kernel(ctx *, void *const *buffers, const int64_t *params, int64_t begin, int64_t end)

`buffers` and `params` are in the kernel's order. [begin, end) is the part of the parallel loop's index
range to run; it is clamped to the loop's extent. A kernel without a parallel loop ignores it; callers pass
0, 1. The result is 0, or a positive code whose details are in `ctx->error`.

The context only ever grows at its end; `version` and `size` say what the caller filled in.
"""

from __future__ import annotations

import ctypes
from functools import cache

from ingot.tracer.record import record

CONTEXT_VERSION = 1
KERNEL_SIGNATURE = (
    "int32_t (*)(ctx *, void *const *buffers, const int64_t *params, int64_t begin, int64_t end)"
)
KERNEL_LLVM = "i32 (ptr, ptr, ptr, i64, i64)"


@record
class Field:
    """One member of a C structure: name, C declaration, LLVM type, byte offset, and what it is for."""

    name: str
    c: str
    llvm: str
    offset: int
    doc: str


CONTEXT: tuple[Field, ...] = (
    Field("version", "uint32_t version", "i32", 0, "CONTEXT_VERSION"),
    Field("size", "uint32_t size", "i32", 4, "bytes of this structure"),
    Field("dims", "const int64_t *dims", "ptr", 8, "values of the program's symbolic dims"),
    Field(
        "strides",
        "const int64_t *const *strides",
        "ptr",
        16,
        "element strides of each input, or null if contiguous",
    ),
    Field("workspace", "uint8_t *workspace", "ptr", 24, "64-byte aligned memory of the planned size"),
    Field("constants", "void *const *constants", "ptr", 32, "the program's constants"),
    Field(
        "parallel_for",
        "int32_t (*parallel_for)(ctx *, kernel_fn, void *const *buffers, const int64_t *params, "
        "int64_t extent, int64_t work)",
        "ptr",
        40,
        "runs a kernel over [0, extent) in pieces; `work` is about how many picoseconds all of it takes",
    ),
    Field(
        "host_call",
        "int32_t (*host_call)(ctx *, int64_t index, void *const *buffers, const int64_t *params)",
        "ptr",
        48,
        "evaluates a primitive without native lowering; sets error->code to 0 when it has finished",
    ),
    Field(
        "poll", "int32_t (*poll)(ctx *)", "ptr", 56, "non-zero: stop and return this code (Ctrl-C, deadline)"
    ),
    Field("error", "ingot_error *error", "ptr", 64, "where a failing kernel writes its record"),
    Field("kernels", "const kernel_fn *kernels", "ptr", 72, "kernels that live in other images"),
    Field("host", "void *host", "ptr", 80, "the caller's own"),
    Field(
        "scratch",
        "uint8_t *scratch",
        "ptr",
        88,
        "64-byte aligned memory of the running thread alone: worker k of parallel_for runs with a copy of "
        "the context whose scratch lies k * scratch_bytes further",
    ),
    Field("scratch_bytes", "int64_t scratch_bytes", "i64", 96, "bytes of one thread's scratch"),
    Field("threads", "int64_t threads", "i64", 104, "threads of parallel_for: scratch is for so many"),
    Field("pool", "void *pool", "ptr", 112, "what parallel_for works with"),
)
CONTEXT_SIZE = 120

ERROR: tuple[Field, ...] = (
    Field("code", "int32_t code", "i32", 0, "as returned; see lowering.loop.FAIL_*"),
    Field("kernel", "int32_t kernel", "i32", 4, "number of the kernel in its program, set by the caller"),
    Field("values", "int64_t values[4]", "[4 x i64]", 8, "what the failing statement reported"),
)
ERROR_SIZE = 40

OFFSETS = {field.name: field.offset for field in CONTEXT}
ERROR_OFFSETS = {field.name: field.offset for field in ERROR}
_CTYPES = {"i32": ctypes.c_uint32, "i64": ctypes.c_int64, "ptr": ctypes.c_void_p}


def llvm_context() -> str:
    """The context's LLVM struct type, such as `{ i32, i32, ptr, ... }`."""
    return "{ " + ", ".join(field.llvm for field in CONTEXT) + " }"


def c_declarations() -> str:
    """The structures and function types as C, for headers."""
    error = "\n".join(f"    {f.c};  /* {f.doc} */" for f in ERROR)
    context = "\n".join(
        f"    {f.c.replace('ctx *', 'struct ingot_ctx *').replace('kernel_fn', 'ingot_kernel')};"
        f"  /* {f.doc} */"
        for f in CONTEXT
    )
    return (
        f"typedef struct ingot_error {{\n{error}\n}} ingot_error;\n"
        "struct ingot_ctx;\n"
        "typedef int32_t (*ingot_kernel)(struct ingot_ctx *, void *const *, const int64_t *, "
        "int64_t, int64_t);\n"
        f"typedef struct ingot_ctx {{\n{context}\n}} ingot_ctx;\n"
    )


@cache
def context_type() -> type[ctypes.Structure]:
    """The context as a `ctypes.Structure`; all pointers are `c_void_p`."""
    fields = [(field.name, _CTYPES[field.llvm]) for field in CONTEXT]
    return type("Context", (ctypes.Structure,), {"_fields_": fields})


@cache
def error_type() -> type[ctypes.Structure]:
    """The error record as a `ctypes.Structure`."""
    fields = [("code", ctypes.c_int32), ("kernel", ctypes.c_int32), ("values", ctypes.c_int64 * 4)]
    return type("Error", (ctypes.Structure,), {"_fields_": fields})


@cache
def kernel_type() -> type:
    """The `ctypes` prototype of a kernel: context, buffers, params, begin, end."""
    pointer = ctypes.c_void_p
    return ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, ctypes.c_int64, ctypes.c_int64)
