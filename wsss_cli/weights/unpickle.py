"""Torch files that hold other objects beside their weights, read without running or building any of them.

A training checkpoint of MMEngine, for example, keeps its message hub beside the state dict. Every class or function
that such a file names is replaced by a stand-in that does nothing: tensors become plain records, which are turned into
tensors when the whole file has been read, and any other object becomes nothing at all.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What else of the standard library a checkpoint may name: values, dates, paths, and how pickle writes bytes, methods.
HARMLESS = {"argparse", "collections", "datetime", "_codecs"}
VALUES = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple")
PATHS = ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
HARMLESS_NAMES = {("builtins", name) for name in (*VALUES, "getattr", "range", "slice")}
HARMLESS_NAMES |= {(module, name) for module in ("pathlib", "pathlib._local") for name in PATHS}


class RefusedError(Exception):
    """The file names something that no weight file has a use for."""


class Inert:
    """Stands in for an object of any class: takes whatever unpickling does to it, and keeps none of it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Record:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Table(dict[Any, Any]):
    """Stands in for OrderedDict; what is set on it beside its items is let go."""

    def __setstate__(self, state: Any) -> None:
        pass


def _ordered(*items: Any) -> _Table:
    return _Table(*items)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> Any:
    return _Record(storage, offset, shape, stride) if isinstance(storage, _Storage) else Inert()


def _parameter(data: Any, *others: Any) -> Any:
    return data


class _Callable:
    """A function of this file as a pickle may see it: nothing can be set on it."""

    __slots__ = ("_function",)
    _function: Any

    def __init__(self, function: Any) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RefusedError("the file changes how tensors are rebuilt")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.objects: set[str] = set()
        self.classes: dict[str, Any] = {
            "collections.OrderedDict": _Callable(_ordered),
            "torch._utils._rebuild_tensor_v2": _Callable(_tensor),
            "torch._utils._rebuild_parameter": _Callable(_parameter),
        }

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # its name in the pickle protocol of torch.save
        whole = f"{module}.{name}"
        if whole in self.classes:
            return self.classes[whole]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        package = module.partition(".")[0]
        if package in sys.stdlib_module_names and not (package in HARMLESS or (module, name) in HARMLESS_NAMES):
            raise RefusedError(f"the file names {whole}")
        if package != "torch":
            self.objects.add(whole)
        return self.classes.setdefault(whole, type("Inert", (Inert,), {}))

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], torch.dtype):
            return _Storage(str(pid[2]), pid[1])
        return Inert()


def read_inert(path: Path) -> tuple[Any, list[str]]:
    """Read a torch file in zip format, whatever it holds beside tensors and plain values.

    Returns:
        (what was saved: dicts, lists, tuples, plain values, tensors on the CPU, and `Inert` for any other object;
        names of the classes and functions, other than torch's, that were not touched, sorted).
    Raises:
        RefusedError: the file names a function of Python's standard library that weights have no use for.
        pickle.UnpicklingError, zipfile.BadZipFile, KeyError, ValueError: not such a file, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if name is None:
            raise ValueError("no data.pkl in it")
        reader = _Reader(_stored(archive, name))
        value = reader.load()
        folder = name.removesuffix("data.pkl")
        swapped = folder + "byteorder" in archive.namelist() and _stored(archive, folder + "byteorder") != b"little"
        if swapped or sys.byteorder != "little":
            raise ValueError("not little-endian")
        return _built(value, archive, folder + "data/", {}), sorted(reader.objects)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry as torch writes it, without compression: a small file cannot swell up."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} in it is compressed")
    return archive.read(name)


def _built(value: Any, archive: zipfile.ZipFile, folder: str, storages: dict[str, bytearray], depth: int = 0) -> Any:
    """`value` with tensors for records, down to the tables of a state dict; what lies deeper is left out."""
    if isinstance(value, _Record):
        return _from_storage(value, archive, folder, storages)
    if isinstance(value, Mapping):
        if depth == 3:
            return {}
        return {key: _built(item, archive, folder, storages, depth + 1) for key, item in value.items()}
    return value


def _from_storage(record: _Record, archive: zipfile.ZipFile, folder: str, storages: dict[str, bytearray]) -> Tensor:
    sizes = (*record.shape, *record.stride, record.offset)
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes):
        raise ValueError("a tensor of an impossible size")
    key, dtype = record.storage.key, record.storage.dtype
    if key not in storages:
        storages[key] = bytearray(_stored(archive, folder + key))
    if not math.prod(record.shape):
        return torch.empty(record.shape, dtype=dtype)
    last = record.offset + sum((size - 1) * step for size, step in zip(record.shape, record.stride, strict=True))
    whole = torch.frombuffer(storages[key], dtype=dtype)
    if last >= len(whole):
        raise ValueError("a tensor reaches beyond its storage")
    return whole.as_strided(record.shape, record.stride, record.offset).contiguous()
