"""Where in a weight file the tensors are: tables of names, under whatever key a program has put them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_cli.errors import WeightsError
from wsss_cli.talk import shell_word
from wsss_cli.weights.unpickle import Inert

State = dict[str, Tensor]
WRAPPERS = ("module.", "model.")
TORCH_WRAPPERS = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
"""What torch.compile, FSDP and activation checkpointing put into names, before all or within."""
OTHERS = re.compile(r"optim|sched|scaler|rng|callback|loop|message_hub|meta", re.IGNORECASE)
"""Keys under which a training keeps what is no network."""
RESAVE = "save the plain state dict with safetensors.torch.save_file, or download the file again"
OF_ARRAYS = "save tensors: torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'weights.pth')"


def part(state: Mapping[str, Tensor], prefix: str) -> State:
    """The tensors whose keys begin with `prefix`, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}


def without_wrapper(state: Mapping[str, Tensor]) -> State:
    """The state dict without 'module.' or 'model.' where all of its keys begin so, and without torch's wrappers."""
    if any(TORCH_WRAPPERS.search(key) for key in state):
        plain = {TORCH_WRAPPERS.sub(r"\1", key): tensor for key, tensor in state.items()}
        state = plain if len(plain) == len(state) else state  # else two networks would become one
    for wrapper in WRAPPERS:
        if state and all(key.startswith(wrapper) for key in state):
            return without_wrapper(part(state, wrapper))
    return dict(state)


def without_prefix(state: Mapping[str, Tensor], wanted: Iterable[str]) -> State:
    """The state dict without what all of its keys begin with, up to a dot.

    Args:
        wanted: the keys that are wanted: a prefix that one of them has stays.
    """
    state, first = without_wrapper(state), {key.split(".")[0] for key in wanted}
    while len(heads := {key.split(".")[0] for key in state}) == 1 and not heads & first:
        inner = part(state, f"{heads.pop()}.")
        if len(inner) != len(state):
            break
        state = inner
    return state


def choose(value: Any, chosen: str, path: Path, objects: Iterable[str] = ()) -> tuple[State, str]:
    """The tensors of a network in what a file holds.

    Args:
        value: what was read: a table of tensors, or of such tables, two levels down at most.
        chosen: the key, or keys joined by '/', of the table that is meant, or the prefix of keys in it; empty: the
            only one.
        path: for the message.
        objects: names of classes in the file that were not built.
    Returns:
        (tensors by name, the key under which they were; empty where they are the whole).
    Raises:
        WeightsError: no tensor, none of that name, or several networks and none is chosen.
    """
    tables = dict(_tables(value, "")) if isinstance(value, Mapping) else {}
    if not tables and _of_arrays(objects):
        raise WeightsError(f"weights {path} hold arrays of NumPy, not tensors", OF_ARRAYS)
    if not isinstance(value, Mapping):
        raise WeightsError(f"weights {path} hold {_kind(value, objects)}, not tensors by name", _resave(value))
    if chosen:
        return _chosen(tables, chosen, path), chosen
    if not tables:
        names = ", ".join(str(key) for key in list(value)[:6]) or "nothing"
        inside = next((item for item in value.values() if isinstance(item, Inert)), None)
        what = "" if inside is None else f", and {_kind(inside, objects)}"
        raise WeightsError(f"weights {path} hold no tensor under their keys ({names}){what}", _resave(inside))
    if len(tables) > 1:
        listed = ", ".join(f"{name!r} ({len(table)} tensors)" for name, table in tables.items())
        ways = " or ".join(shell_word(f"{path}:{name}") for name in tables)
        raise WeightsError(f"weights {path} hold several networks: {listed}", f"choose one: {ways}")
    ((name, state),) = tables.items()
    return state, name


def _chosen(tables: Mapping[str, State], chosen: str, path: Path) -> State:
    if chosen in tables:
        return tables[chosen]
    name, _, inner = chosen.rpartition("/")
    where = (tables[name], inner) if name in tables else None
    looked = [where] if where else [(table, chosen) for table in tables.values()]
    below = [tensors for table, prefix in looked if (tensors := part(without_wrapper(table), f"{prefix}."))]
    if len(below) == 1:
        return below[0]
    names = ", ".join(name for name in tables if name) or "no table by name"
    what = "more than one part" if below else "no part"
    raise WeightsError(
        f"weights {path} have {what} {chosen!r}", f"they have: {names}; wsss weights inspect {shell_word(path)}"
    )


def _tables(value: Mapping[Any, Any], name: str) -> Iterator[tuple[str, State]]:
    """Tables of tensors: those under the keys of `value`; where there are none, `value` itself."""
    state = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
    inner: list[tuple[str, State]] = []
    if name.count("/") < 1 and not any("." in key for key in state):
        for key, item in value.items():
            if isinstance(key, str) and isinstance(item, Mapping) and not OTHERS.search(key):
                inner += _tables(item, f"{name}/{key}" if name else key)
    if inner:
        yield from inner
    elif state:
        yield name, state


def _kind(value: Any, objects: Iterable[str]) -> str:
    if not isinstance(value, Inert):
        return f"a {type(value).__name__}"
    names = [name for name in objects if not name.startswith("builtins.")]
    shown = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
    return f"a whole network as an object{shown}"


def _of_arrays(objects: Iterable[str]) -> bool:
    """Whether all that was not built is NumPy's."""
    names = [name for name in objects if not name.startswith(("builtins.", "collections.", "_codecs."))]
    return bool(names) and all(name.startswith("numpy.") for name in names)


def _resave(value: Any) -> str:
    if isinstance(value, Inert):
        return (
            "where its program is installed, open it and save only its tensors: torch.save(network.state_dict(), ...)"
        )
    return RESAVE
