"""Compile a kernel for a Hopper GPU, which needs no GPU, in a process without the interpreter."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import importlib, json, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
module, kernels = json.loads(sys.argv[1])
for name, signature, constants, options in kernels:
    kernel = getattr(importlib.import_module(module), name)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(json.dumps({"shared": made.metadata.shared, "bytes": len(made.asm["cubin"])}))
"""


def compile_kernel(module, name, signature, constants, **options):
    """`compile_kernels` with one kernel."""
    return compile_kernels(module, [(name, signature, constants, options)])[0]


def compile_kernels(module, kernels):
    """Shared memory, bytes, and size of the machine code of kernels of a module; fails where one does not compile.

    Args:
        kernels: of each its name; type of every argument in order, as Triton names them ('*fp32', 'i32', 'constexpr');
            value of each 'constexpr'; options (num_warps, num_stages).
    """
    pytest.importorskip("triton")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([module, kernels])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
