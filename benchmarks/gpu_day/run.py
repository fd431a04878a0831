"""Everything worth knowing from one GPU: python run.py OUT_FOLDER [--seconds 345] [--small]

Each part is a process of its own, so that a fault or an illegal access ends that part alone. The order is by worth. After each
part OUT_FOLDER/day.json is written anew. --small: tiny inputs on a CPU, in Triton's interpreter, to try this script.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE, OUT = Path(__file__).resolve().parent, Path(sys.argv[1]).resolve()
SMALL = "--small" in sys.argv
SECONDS = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 345
BEGIN = time.perf_counter()
OUT.mkdir(parents=True, exist_ok=True)
source = HERE / "src" if (HERE / "src").is_dir() else HERE.parents[1]
ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(source), str(HERE), os.environ.get("PYTHONPATH", "")]),
    "PYTHONUNBUFFERED": "1",
    "TRITON_CACHE_DIR": str(OUT / "cache-triton"),
    "TORCHINDUCTOR_CACHE_DIR": str(OUT / "cache-inductor"),
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
}
if SMALL:
    ENV |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
FLAGS = ["--small"] if SMALL else []
DAY = {"parts": {}}
GROUPS = ("crf", "walk", "par", "ce", "pairs", "depthwise", "bn", "fused", "stages")


def left():
    return SECONDS - (time.perf_counter() - BEGIN)


def start(name, *arguments, nice=0):
    log = open(OUT / f"{name}.log", "w")
    command = [sys.executable, *map(str, arguments), *FLAGS]
    return name, subprocess.Popen(
        command,
        env=ENV,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=HERE,
        preexec_fn=(lambda: os.nice(nice)) if nice else None,
    )


def finish(started, seconds, show=True):
    name, process = started
    try:
        code = process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = "cut off"
    DAY["parts"][name] = {"exit": code, "ended_at_s": round(time.perf_counter() - BEGIN, 1)}
    if show:
        text = (OUT / f"{name}.log").read_text(errors="replace")
        lines = [line for line in text.splitlines() if "Warning" not in line and "warn" not in line]
        print("\n".join(lines[-400:]), flush=True)
    print(f"== {name}: exit {code}, {time.perf_counter() - BEGIN:.0f} s since the start", flush=True)
    save()


def save():
    for file in OUT.glob("*.json"):
        if file.name != "day.json" and not file.name.startswith("warm"):
            with contextlib.suppress(ValueError):
                DAY[file.stem] = json.loads(file.read_text())
    (OUT / "day.json").write_text(json.dumps(DAY))


print(
    subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,memory.used", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    ).stdout
    if not SMALL
    else "small",
    flush=True,
)
versions = "import torch, sys; print(sys.version.split()[0], torch.__version__, torch.version.cuda, torch.backends.cudnn.version()); import triton, timm, cv2; print('triton', triton.__version__, 'timm', timm.__version__, 'cv2', cv2.__version__)"
print(subprocess.run([sys.executable, "-c", versions], env=ENV, capture_output=True, text=True).stdout, flush=True)

# 1. all checks side by side (their times mean nothing), and the compilers' caches are warmed behind them
warm = None if SMALL else start("warm", "train.py", OUT / "warm.json", "compile", "compile-loss", "--warm", nice=10)
sweeps = (
    []
    if SMALL
    else [
        start(f"warm-{s}", "times.py", OUT / f"warm-{s}.json", 100, "--only", s, "--once", nice=5)
        for s in ("crf", "depthwise", "bn", "ce", "walk,par,pairs")
    ]
)
checks = [start(f"check-{group}", "checks.py", group, OUT / f"check-{group}.json") for group in GROUPS]
for one in checks:
    finish(one, min(left(), 110 if not SMALL else 400))
for one in sweeps:
    finish(one, min(left(), 105 - (time.perf_counter() - BEGIN)), show=False)
if warm:
    finish(warm, min(left() - 150, 105 - (time.perf_counter() - BEGIN)), show=False)
# 2. training, alone on the GPU, the most wanted rows first
first = ("bf16-cl", "fused", "compile", "loss", "fused-graph")
first = ("bf16-cl", "loss") if SMALL else first  # the interpreter takes minutes for a whole network
finish(start("train", "train.py", OUT / "train.json", *first, "--profile"), min(left() - 60, 100) if not SMALL else 300)
# 3. kernels
finish(
    start("times", "times.py", OUT / "times.json", min(left() - 45, 95) if not SMALL else 200),
    min(left() - 30, 110) if not SMALL else 250,
)
# 4. the other variants, while there is time
more = ("loss-bn", "loss-dw", "compile-loss", "bf16-cl-no-bench", "tf32-nchw", "bf16-nchw", "compile-loss-dw")
if left() > 15 and not SMALL:
    finish(start("train2", "train.py", OUT / "train2.json", *more, "--steps", "40"), left())
save()
bad = [row["check"] for key in DAY if key.startswith("check-") for row in DAY[key] if not row.get("ok")]
print("FAILED CHECKS:", bad or "none")
for key in ("train", "train2"):
    for row in DAY.get(key, []):
        print({k: v for k, v in row.items() if k not in ("top", "trace")})
print(
    "JSON",
    json.dumps(
        {
            "train": [
                {k: v for k, v in r.items() if k not in ("top", "trace")}
                for r in DAY.get("train", []) + DAY.get("train2", [])
            ],
            "times": DAY.get("times"),
            "failed": bad,
        }
    )[:9000],
)
