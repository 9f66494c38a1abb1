"""Native code that is written at run time: compiled by LLVM for this CPU, and called by XLA.

XLA calls it through its foreign function interface, https://docs.jax.dev/en/latest/ffi.html, whose C structures are
read here by their offsets (xla/ffi/api/c_api.h, which jaxlib includes).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import llvmlite.binding as llvm
from jax import Array
from llvmlite import ir

from l2jax.native.loops import INDEX, INT, POINTER, Builder, Value

BYTE = ir.IntType(8)

# Offsets in bytes.
FRAME_EXTENSION, FRAME_API, FRAME_ARGS, FRAME_RESULTS = 8, 16, 72, 112
BUFFER_DATA, BUFFER_DIMS = 24, 40
EXTENSION_METADATA, METADATA_VERSION, METADATA_TRAITS, API_VERSION = 24, 24, 32, 32


class Cpu(NamedTuple):
    """What decides the shape of the code.

    Attributes:
      lanes: float32 numbers in a vector.
      registers: vectors.
    """

    lanes: int
    registers: int


@functools.cache
def cpu() -> Cpu:
    """This machine's."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Cpu(16, 32)
    if features.get("avx2") and features.get("fma"):
        return Cpu(8, 16)
    return Cpu(4, 32 if features.get("neon") else 16)


def call(write: Callable[..., None], result: jax.ShapeDtypeStruct, *args: Array, **static: Hashable) -> Array:
    """The result of native code, under any transformation but gradients.

    Args:
      write: writes the code, given a builder of LLVM IR, the length of the first axis of the first argument, pointers
        to the arguments and to the result, and by name what is known before.
      result: its shape and type.
      args: arrays, float32.
      static: what is known before.
    """
    (out,) = call_in_place(write, [result], {}, *args, **static)
    return out


def call_in_place(
    write: Callable[..., None],
    results: Sequence[jax.ShapeDtypeStruct],
    in_place: Mapping[int, int],
    *args: Array,
    **static: Hashable,
) -> Sequence[Array]:
    """The results of code that has several, some of them in the memory of arguments: {argument: result}."""
    name = _registered(write, len(args), len(results), tuple(sorted(static.items())))
    aliases = dict(in_place)
    return jax.ffi.ffi_call(name, results, vmap_method="sequential", input_output_aliases=aliases)(*args)


@functools.cache
def _registered(
    write: Callable[..., None], num_args: int, num_results: int, static: tuple[tuple[str, Any], ...]
) -> str:
    """The name under which XLA knows the code."""
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [INDEX, *[POINTER] * (num_args + num_results)])
    inner = ir.Function(module, kind, "inner")
    b: Builder = ir.IRBuilder(inner.append_basic_block())
    write(b, *inner.args, **dict(static))
    b.ret_void()
    _write_handler(module, inner, num_args, num_results)
    return _registered_code(write.__name__, str(module))


@functools.cache
def _registered_code(what: str, code: str) -> str:
    name = f"l2jax_{what}_{hashlib.sha256(code.encode()).hexdigest()[:16]}"
    jax.ffi.register_ffi_target(name, _capsule(_compiled(code)), platform="cpu")
    return name


def _write_handler(module: ir.Module, inner: ir.Function, num_args: int, num_results: int) -> None:
    """The function that XLA calls, once to ask for the version of the interface and then to compute."""
    handler = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), "handler")
    b: Builder = ir.IRBuilder(handler.append_basic_block())
    nothing = ir.Constant(POINTER, None)

    def place(struct: Value, offset: int) -> Value:
        return b.gep(struct, [ir.Constant(INDEX, offset)], source_etype=BYTE)

    def field(struct: Value, offset: int, kind: ir.Type = POINTER) -> Value:
        return b.load(place(struct, offset), typ=kind)

    (frame,) = handler.args
    extension = field(frame, FRAME_EXTENSION)
    asked, called = b.append_basic_block(), b.append_basic_block()
    b.cbranch(b.icmp_unsigned("!=", extension, nothing), asked, called)

    b.position_at_end(asked)
    metadata, api = field(extension, EXTENSION_METADATA), field(frame, FRAME_API)
    b.store(field(api, API_VERSION, INDEX), place(metadata, METADATA_VERSION))  # major and minor
    b.store(ir.Constant(INT, 0), place(metadata, METADATA_TRAITS))
    b.ret(nothing)

    b.position_at_end(called)
    arrays, results = field(frame, FRAME_ARGS), field(frame, FRAME_RESULTS)
    buffers = [field(arrays, 8 * n) for n in range(num_args)] + [field(results, 8 * n) for n in range(num_results)]
    first_axis = field(field(buffers[0], BUFFER_DIMS), 0, INDEX)
    b.call(inner, [first_axis, *(field(buffer, BUFFER_DATA) for buffer in buffers)])
    b.ret(nothing)


_engines: list[Any] = []  # what is compiled lives as long as these


def _compiled(code: str) -> int:
    """The address of the handler. LLVM's passes over IR are left out: they take long, and such loops need none."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(code), _machine())
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address("handler")


def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=1)


def _capsule(address: int) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)
