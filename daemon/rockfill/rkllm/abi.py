"""The C interface of `librkllmrt.so` in its five generations, and nothing more than it.

`Abi.of(generation)` is what rkllm.h declares, as ctypes classes made from the tables in `header`; `Library` is one open
library with at most one model. What the calls mean for a completion is the session's business. Opening a library runs
its code: only the worker process does. Issues [#N] are of airockchip/rknn-llm.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from rockfill.errors import Code, Problem
from rockfill.rkllm import header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rockfill.compat.runtime import Generation

Struct: TypeAlias = ctypes.Structure  # fields are made at run time, so their types are Any
StructType: TypeAlias = type[ctypes.Structure]


class CallState(IntEnum):
    """LLMCallState: why the callback is called."""

    NORMAL = 0  # one token
    WAITING = 1  # a token whose bytes do not yet make a whole character
    FINISH = 2  # the run is over; may be missing after an abort
    ERROR = 3


class InputType(IntEnum):
    """RKLLMInputType: what RKLLMInput holds."""

    PROMPT = 0
    TOKEN = 1


@dataclass(frozen=True, slots=True)
class Perf:
    """RKLLMPerfStat: how a run went, as the library measured it (from 1.2.1 on)."""

    prefill_ms: float
    prefill_tokens: int
    generate_ms: float
    generate_tokens: int
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Emission:
    """One call of the callback, copied out of the library's memory, which is its own again when the call returns.

    `state` may be a number that `CallState` does not have. `text` is None where the library gives none; it may end
    within a character. `token_id` is None where there is no result at all. `perf` comes with FINISH, from 1.2.1 on.
    """

    state: int
    token_id: int | None
    text: bytes | None
    perf: Perf | None = None


_SCALARS: Mapping[str, Any] = MappingProxyType(
    {
        "bool": ctypes.c_bool,
        "int": ctypes.c_int,
        "int8_t": ctypes.c_int8,
        "uint8_t": ctypes.c_uint8,
        "int32_t": ctypes.c_int32,
        "uint32_t": ctypes.c_uint32,
        "size_t": ctypes.c_size_t,
        "float": ctypes.c_float,
        "char*": ctypes.c_char_p,
        "void*": ctypes.c_void_p,
        "LLMHandle": ctypes.c_void_p,
        # Only the result callback is ever set; the other two stay NULL
        "LLMTokenizerCallback": ctypes.c_void_p,
        "LLMGetEmbedCallback": ctypes.c_void_p,
        # An enum whose values fit an int is an int on Linux, both x86-64 and aarch64
        "RKLLMInputType": ctypes.c_int32,
        "RKLLMInferMode": ctypes.c_int32,
        "LLMCallState": ctypes.c_int32,
    }
)

# sizeof(RKLLMInput) of 1.3, the longest: a library that copies more than its own still finds zeros
_LONGEST_INPUT_BYTES = 160
# More than any RKLLMParam (208 at most); the caller's buffer is filled through a pointer, so a larger one is safe
_PROBE_BYTES = 512


def _resolve(types: Mapping[str, Any], name: str) -> Any:
    if name in types:
        return types[name]
    if name.endswith("*"):
        return POINTER(_resolve(types, name[:-1]))
    element, _, count = name.removesuffix("]").partition("[")
    return types[element] * int(count)


class Abi:
    """The structures and prototypes of one generation; get it by `Abi.of`.

    `structures` has every structure of rkllm.h by its name there, `prototypes` (restype, argtypes) by function; what
    a generation does not have is not in them. A new instance of a structure is all zero.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        types = dict(_SCALARS)
        self.structures: dict[str, StructType] = {}
        for structure in header.STRUCTURES:
            if generation not in structure:
                continue
            fields = [(f.name, _resolve(types, f.type)) for f in structure.fields if generation in f]
            unions = [name for name, kind in fields if isinstance(kind, type) and issubclass(kind, ctypes.Union)]
            base = ctypes.Union if structure.union else ctypes.Structure
            made: Any = type(structure.name, (base,), {"_anonymous_": unions, "_fields_": fields})
            types[structure.name] = self.structures[structure.name] = made
            if structure.name == "RKLLMResult":
                # Up to 1.2.1b1 the callback returns void: a caller then ignores the register that our 0 stands in
                types["LLMResultCallback"] = CFUNCTYPE(ctypes.c_int, POINTER(made), ctypes.c_void_p, ctypes.c_int)
        self.ResultCallback: Any = types["LLMResultCallback"]
        self.Param = self.structures["RKLLMParam"]
        self.Input = self.structures["RKLLMInput"]
        self.InferParam = self.structures["RKLLMInferParam"]
        self.Result = self.structures["RKLLMResult"]
        self.prototypes = {
            p.name: (_resolve(types, p.restype), [_resolve(types, argument) for argument in p.argtypes])
            for p in header.PROTOTYPES
            if generation in p
        }

    @classmethod
    @cache
    def of(cls, generation: Generation) -> Abi:
        return cls(generation)

    def token_input(self, ids: Sequence[int]) -> Struct:
        """An RKLLMInput of token ids, which it keeps alive; `ids` must not be empty."""
        made = self.Input.from_buffer(bytearray(_LONGEST_INPUT_BYTES))
        made.input_type = InputType.TOKEN
        made.token_input.input_ids = (ctypes.c_int32 * len(ids))(*ids)
        made.token_input.n_tokens = len(ids)
        if hasattr(made, "role"):
            made.role = b"user"  # as Rockchip's llm_demo.cpp does; whether NULL is allowed is not documented
        return made

    def infer_param(self, max_new_tokens: int = 0, sampling: Struct | None = None) -> Struct:
        """An RKLLMInferParam that generates without history.

        From 1.3 on it carries a limit (0: that of `init`) and an RKLLMSamplingParam (None: as `init` had it) for this
        run; earlier only `init` can set either, and both are left out.
        """
        made = self.InferParam()
        if hasattr(made, "sampling_params"):
            made.max_new_tokens = max_new_tokens
            made.sampling_params = sampling if sampling is None else ctypes.pointer(sampling)
        return made


class Library:
    """One open `librkllmrt.so` with at most one model in it.

    Every call that returns an int returns what the library did: 0 is success, though 1.1 also says so when a model
    failed to load [#129]. `abort` and `is_running` may be called from any thread at any time between `init` and
    `destroy`; everything else belongs to one thread [#382].
    """

    def __init__(self, abi: Abi, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.abi = abi
        self._functions = functions
        self._handle = ctypes.c_void_p()
        self._callbacks: tuple[Any, ...] = ()  # C holds pointers to these for as long as there is a handle

    @classmethod
    def open(cls, path: Path, generation: Generation) -> Library:
        """The library at `path` with the prototypes of `generation`, which must be known to be right.

        Raises `engine_not_installed` if it can't be loaded, `runtime_unsupported` if a function is missing.
        """
        abi = Abi.of(generation)
        loaded = _load(path)
        functions = {}
        for name, (restype, argtypes) in abi.prototypes.items():
            function = _symbol(loaded, name)
            function.restype, function.argtypes = restype, argtypes
            functions[name] = function
        return cls(abi, functions)

    @staticmethod
    def probe(path: Path) -> bytes:
        """What `rkllm_createDefaultParam` of any generation writes, for `compat.runtime.settle`.

        A structure this large comes back through a pointer to the caller's memory (AAPCS64 x8, System V rdi), so
        that its true size need not be known.
        """
        create = _symbol(_load(path), "rkllm_createDefaultParam")
        create.restype, create.argtypes = _ProbedParam, ()
        return bytes(create())

    def provides(self, function: str) -> bool:
        """Whether this generation has the function, named without its ``rkllm_``."""
        return f"rkllm_{function}" in self._functions

    def default_param(self) -> Struct:
        """The library's defaults, with values also where it leaves what was in memory before."""
        param = self._functions["rkllm_createDefaultParam"]()
        extend = param.extend_param
        ctypes.memset(ctypes.addressof(extend) + type(extend).reserved.offset, 0, type(extend).reserved.size)
        if hasattr(extend, "n_batch"):
            extend.n_batch, extend.use_cross_attn = 1, 0
        # 1.2 writes the mask only on machines with 4 or 8 CPUs, and refuses one that does not match the number
        if hasattr(extend, "enabled_cpus_mask") and extend.enabled_cpus_mask.bit_count() != extend.enabled_cpus_num:
            extend.enabled_cpus_mask = (1 << extend.enabled_cpus_num) - 1
        return param  # type: ignore[no-any-return]

    def init(self, param: Struct, on_emission: Callable[[Emission], None]) -> int:
        """Load the model that `param` names. Blocks; prints on file descriptors 1 and 2.

        `on_emission` is called during `run`, in a thread of the library's choice, and must neither block nor raise.
        """
        assert self._handle.value is None, "one model per library"

        def on_result(result: Any, _userdata: int | None, state: int) -> int:
            on_emission(self._emission(result, state))
            return 0

        callback = self.abi.ResultCallback(on_result)
        if "RKLLMCallback" in self.abi.structures:
            table = self.abi.structures["RKLLMCallback"](result_callback=callback)
            argument = ctypes.byref(table)
            self._callbacks = (callback, table)
        else:
            argument = callback
            self._callbacks = (callback,)
        handle = ctypes.c_void_p()
        code: int = self._functions["rkllm_init"](ctypes.byref(handle), ctypes.byref(param), argument)
        if code == 0:
            self._handle = handle
        return code

    def run(self, prompt: Struct, infer: Struct) -> int:
        """Generate; returns when it is over. Both arguments come from `abi`, and may be thrown away afterwards."""
        return self._call("rkllm_run", ctypes.byref(prompt), ctypes.byref(infer), None)

    def abort(self) -> int:
        """End the run at its next step; a prefill is not interrupted [#400]."""
        return self._call("rkllm_abort")

    def is_running(self) -> bool:
        """Whether a run is in progress. The headers up to 1.2.3 say the opposite of what the function does [#502]."""
        return self._call("rkllm_is_running") == 1

    def destroy(self) -> int:
        """Unload the model."""
        code = self._call("rkllm_destroy")
        self._handle = ctypes.c_void_p()
        return code

    def clear_kv_cache(self) -> int:
        """Forget the tokens of earlier runs (from 1.2 on; 1.1 remembers none)."""
        _, argtypes = self.abi.prototypes["rkllm_clear_kv_cache"]
        keep_system_prompt = 0
        whole_range = (None,) * (len(argtypes) - 2)
        return self._call("rkllm_clear_kv_cache", keep_system_prompt, *whole_range)

    def set_chat_template(self, system: str, prefix: str, postfix: str) -> int:
        """What is put around a text prompt (from 1.2 on); three empty strings end it. Clears the KV cache [#377]."""
        return self._call("rkllm_set_chat_template", system.encode(), prefix.encode(), postfix.encode())

    def _call(self, name: str, *arguments: Any) -> int:
        if self._handle.value is None:
            return -1  # what 1.2.1b1 answers to NULL; what the others do is not known
        code: int = self._functions[name](self._handle, *arguments)
        return code

    def _emission(self, result: Any, state: int) -> Emission:
        if not result:
            return Emission(state, None, None)
        content = result.contents
        perf = None
        if state == CallState.FINISH and hasattr(content, "perf"):  # in other states its bytes mean nothing
            p = content.perf
            perf = Perf(p.prefill_time_ms, p.prefill_tokens, p.generate_time_ms, p.generate_tokens, p.memory_usage_mb)
        return Emission(state, content.token_id, content.text, perf)


class _ProbedParam(ctypes.Structure):
    _fields_ = (("image", ctypes.c_uint8 * _PROBE_BYTES),)


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Problem(
            Code.ENGINE_NOT_INSTALLED,
            f"The RKLLM runtime can't be loaded: {error}",
            "It needs an aarch64 system with libgomp1, libstdc++6 and libgcc-s1.",
            path=str(path),
        ) from None


def _symbol(loaded: ctypes.CDLL, name: str) -> Any:
    try:
        return loaded[name]
    except AttributeError:
        raise Problem(
            Code.RUNTIME_UNSUPPORTED, f"The RKLLM runtime has no function {name}", path=loaded._name
        ) from None
