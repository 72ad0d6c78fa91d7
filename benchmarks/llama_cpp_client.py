"""Logits and greedy continuations by llama.cpp, in a process without this library: run by `benchmarks/exports.py`.

    PYTHON benchmarks/llama_cpp_client.py JOB.json OUT.npz

PYTHON has llama.cpp built, with its C interface and its loader of control vectors, and the declarations of the same
release: `pip install --no-deps xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 cffi pycparser certifi numpy`. A job
names a model in GGUF, token ids, and a control vector or an adapter. The control vector is read by llama.cpp's own
`common_control_vector_load`, as its programs do with `--control-vector`; `shift` moves it by layers.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp.xllamacpp  # pyright: ignore[reportMissingImports]
from llama_cpp_py_sync._cffi_bindings import get_ffi  # pyright: ignore[reportMissingImports]

FLOAT32 = 0
LIBRARY = xllamacpp.xllamacpp.__file__
LOADER = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"


class _Asked(ctypes.Structure):
    """llama.cpp's common_control_vector_load_info; a string is a pointer, as this package is built."""

    _fields_ = [("strength", ctypes.c_float), ("file", ctypes.c_void_p)]  # noqa: RUF012


class _Vector(ctypes.Structure):
    """A std::vector."""

    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("room", ctypes.c_void_p)]  # noqa: RUF012


class _Loaded(ctypes.Structure):
    """llama.cpp's common_control_vector_data: the vector of layer l is row l - 1."""

    _fields_ = [("width", ctypes.c_int), ("data", _Vector)]  # noqa: RUF012


def load_control_vector(file: str) -> np.ndarray:
    """What llama.cpp's loader makes of a file at strength 1: a row for each layer from 1 on."""
    loader = ctypes.CDLL(LIBRARY)[LOADER]
    loader.restype, loader.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
    name = ctypes.create_string_buffer(file.encode())
    asked = _Asked(1.0, ctypes.addressof(name))
    begin, end = ctypes.addressof(asked), ctypes.addressof(asked) + ctypes.sizeof(asked)
    given, loaded = _Vector(begin, end, end), _Loaded()
    loader(ctypes.addressof(loaded), ctypes.addressof(given))
    if loaded.width < 1:
        raise SystemExit(f"llama.cpp refuses {file}")
    count = (loaded.data.end - loaded.data.begin) // 4
    rows = np.ctypeslib.as_array((ctypes.c_float * count).from_address(loaded.data.begin)).copy()
    return rows.reshape(-1, loaded.width)


class LlamaCpp:
    """A model in llama.cpp, in float32, on one thread."""

    def __init__(self, file: str) -> None:
        self.ffi = get_ffi()
        self.lib = self.ffi.dlopen(LIBRARY)
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(file.encode(), self.lib.llama_model_default_params())
        settings = self.lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
        settings.n_threads = settings.n_threads_batch = 1
        settings.type_k = settings.type_v = FLOAT32
        settings.flash_attn_type = 0
        self.context = self.lib.llama_init_from_model(self.model, settings)
        if self.model == self.ffi.NULL or self.context == self.ffi.NULL:
            raise SystemExit(f"llama.cpp does not load {file}")
        self.n_vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))

    def steer(self, vectors: np.ndarray, shift: int) -> None:
        """Set a control vector, moved by some layers."""
        layers = self.lib.llama_model_n_layer(self.model)
        rows = np.zeros((layers, vectors.shape[1]), np.float32)
        rows[shift : shift + len(vectors)] = vectors[: layers - shift]
        given = self.ffi.cast("float *", self.ffi.from_buffer(rows))
        if self.lib.llama_set_adapter_cvec(self.context, given, rows.size, rows.shape[1], 1, layers):
            raise SystemExit("llama.cpp refuses the control vector")

    def adapt(self, file: str) -> None:
        """Take an adapter, at scale 1."""
        adapter = self.lib.llama_adapter_lora_init(self.model, file.encode())
        if adapter == self.ffi.NULL or self.lib.llama_set_adapters_lora(
            self.context, self.ffi.new("struct llama_adapter_lora *[]", [adapter]), 1, self.ffi.new("float[]", [1.0])
        ):
            raise SystemExit(f"llama.cpp refuses the adapter {file}")

    def logits(self, ids: list[int]) -> np.ndarray:
        """The logits after every token of a text."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        if self.lib.llama_decode(self.context, batch):
            raise SystemExit("llama.cpp could not run the text")
        rows = [self.lib.llama_get_logits_ith(self.context, i) for i in range(len(ids))]
        given = [np.frombuffer(self.ffi.buffer(row, 4 * self.n_vocab), np.float32).copy() for row in rows]
        self.lib.llama_batch_free(batch)
        return np.stack(given)

    def continue_greedily(self, ids: list[int], n: int) -> list[int]:
        """The n likeliest tokens, one after the other."""
        made = list(ids)
        for _ in range(n):
            made.append(int(self.logits(made)[-1].argmax()))
        return made[len(ids) :]


def main() -> None:
    """Do the job."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    one = LlamaCpp(job["model"])
    if job.get("vector"):
        one.steer(load_control_vector(job["vector"]), job.get("shift", 0))
    if job.get("adapter"):
        one.adapt(job["adapter"])
    found: dict[str, Any] = {f"logits{i}": one.logits(ids) for i, ids in enumerate(job["texts"])}
    made = [one.continue_greedily(ids, job.get("greedy", 0)) for ids in job["texts"]]
    np.savez(sys.argv[2], **found, made=np.array(made))


if __name__ == "__main__":
    main()
