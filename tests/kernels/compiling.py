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
module, name, signature, constants, options = json.loads(sys.argv[1])
kernel = getattr(importlib.import_module(module), name)
made = compile(ASTSource(fn=kernel, signature=signature, constexprs=constants), target=GPUTarget("cuda", 90, 32),
               options=options)
print(json.dumps({"shared": made.metadata.shared, "bytes": len(made.asm["cubin"])}))
"""


def compile_kernel(module, name, signature, constants, **options):
    """Shared memory, bytes, and size of the machine code of a kernel; fails where it does not compile.

    Args:
        signature: type of every argument in order, as Triton names them: '*fp32', 'i32', 'constexpr'.
        constants: value of each 'constexpr'.
        options: num_warps, num_stages.
    """
    pytest.importorskip("triton")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    given = json.dumps([module, name, signature, constants, options])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, given], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
