"""Compile kernels for a Hopper GPU, which needs no GPU, in a process without the interpreter."""

import json
from pathlib import Path
from tempfile import gettempdir

import pytest
from command import python

SCRIPT = """
import importlib, json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
for module, name, signature, constants, aligned, options in json.loads(sys.argv[1]):
    kernel = getattr(importlib.import_module(module), name)
    known = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(signature)
             if name in aligned or signature[name].startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=known)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{what}:(\\d+)", said)[1]) for what in ("REG", "STACK"))
    print(json.dumps({"shared": made.metadata.shared, "bytes": len(made.asm["cubin"]), "registers": registers,
                      "spilled": stack}))
"""


def compile_kernel(module, name, signature, constants, aligned=(), **options):
    """What a kernel takes: shared memory and machine code, bytes; registers of a thread; bytes spilled from them.

    Fails where it does not compile.

    Args:
        signature: type of every argument in order, as Triton names them: '*fp32', 'i32', 'constexpr'.
        constants: value of each 'constexpr'.
        aligned: integers that a launch would find to be multiples of 16; pointers are taken to be.
        options: num_warps, num_stages.
    """
    return compile_kernels([(module, name, signature, constants, aligned, options)])[0]


def compile_kernels(jobs):
    """The same for many kernels, in one process: each as the arguments of `compile_kernel`, options last."""
    pytest.importorskip("triton")
    done = python(Path.cwd(), "-c", SCRIPT, json.dumps(jobs), TRITON_INTERPRET="0", TMPDIR=gettempdir())
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]
