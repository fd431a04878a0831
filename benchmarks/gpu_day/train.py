"""Training steps of DeepLabV3+ R50-D8, crop 512, batch 16, in variants; memory; a profile. python train.py OUT.json VARIANT... [--small] [--steps N] [--profile] [--warm]"""

import collections
import json
import sys
import time
import traceback

import torch
from checks import CUDA, DEV, SMALL, deeplab

STEPS = int(sys.argv[sys.argv.index("--steps") + 1]) if "--steps" in sys.argv else (1 if SMALL else 60)
PROFILE, WARM = "--profile" in sys.argv, "--warm" in sys.argv
# precision, channels_last, kernels (plain, loss, fused), compile, cudnn.benchmark (which a training has on), CUDA graph
VARIANTS = {
    "tf32-nchw": ("fp32", False, "plain", False, True, False),
    "bf16-nchw": ("bf16", False, "plain", False, True, False),
    "bf16-cl-no-bench": ("bf16", True, "plain", False, False, False),
    "bf16-cl": ("bf16", True, "plain", False, True, False),  # as a training is by default
    "loss": ("bf16", True, "loss", False, True, False),
    "loss-bn": ("bf16", True, "loss+bn", False, True, False),
    "loss-dw": ("bf16", True, "loss+dw", False, True, False),
    "fused": ("bf16", True, "fused", False, True, False),  # train.kernels=fused
    "fused-graph": ("bf16", True, "fused", False, True, True),
    "compile": ("bf16", True, "plain", True, True, False),  # train.compile=true
    "compile-loss": ("bf16", True, "loss", True, True, False),
    "compile-loss-dw": ("bf16", True, "loss+dw", True, True, False),
}


def network(channels_last, kernels):
    torch.manual_seed(0)
    model = deeplab()
    model = model.to(DEV, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    if kernels in ("fused", "loss+bn"):
        from wsss_cli.models.fused import fuse

        fuse(model)
    if kernels in ("loss+bn", "loss+dw"):
        from wsss_cli.kernels import depthwise

        for module in model.modules():
            if kernels == "loss+bn" and type(module) is depthwise.DepthwiseConv3x3:
                module.__class__ = torch.nn.Conv2d
            elif kernels == "loss+dw" and depthwise.fits(module):
                module.__class__ = depthwise.DepthwiseConv3x3
    return model.train()


def run(name):
    from wsss_cli.losses.cross_entropy import cross_entropy

    precision, channels_last, kernels, compiled, bench, graph = VARIANTS[name]
    if CUDA:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = bench
        torch.cuda.reset_peak_memory_stats()
    model = network(channels_last, kernels)
    forward = torch.compile(model.forward) if compiled else model.forward
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=CUDA)
    batch, size = (2, 32) if SMALL else (16, 512)
    image = torch.randint(
        0, 256, (batch, size, size, 3), device=DEV, dtype=torch.uint8, generator=torch.Generator(DEV).manual_seed(1)
    )
    target = torch.randint(
        0, 21, (batch, size // 32, size // 32), device=DEV, generator=torch.Generator(DEV).manual_seed(2)
    )
    target = target.repeat_interleave(32, 1).repeat_interleave(32, 2)
    how = "plain" if kernels == "plain" else "fused"

    def step():
        x = model.backbone.normalise(image.permute(0, 3, 1, 2))
        x = x if channels_last else x.contiguous()
        with torch.autocast(DEV.type, torch.bfloat16, enabled=precision == "bf16"):
            logits, aux = forward(x, aux=True)
            loss = cross_entropy(logits, target, kernels=how) + 0.4 * cross_entropy(aux, target, kernels=how)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    begin = time.perf_counter()
    losses = [step() for _ in range(1 if SMALL else 4)]
    wait()
    row = {"variant": name, "warm_s": round(time.perf_counter() - begin, 1)}
    if WARM:
        return row
    if graph and CUDA:
        begin = time.perf_counter()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        recorded = torch.cuda.CUDAGraph()
        optimiser.zero_grad(set_to_none=True)
        with torch.cuda.graph(recorded):
            static = step()
        row["capture_s"] = round(time.perf_counter() - begin, 1)

        def step():
            recorded.replay()
            return static.clone()

        step()
    wait()
    steps = STEPS if precision == "bf16" else max(STEPS // 3, 1)
    begin = time.perf_counter()
    losses += [step() for _ in range(steps)]
    enqueued = time.perf_counter() - begin
    wait()
    seconds = time.perf_counter() - begin
    row |= {
        "ms": round(1000 * seconds / steps, 2),
        "it_s": round(steps / seconds, 2),
        "host_ms": round(1000 * enqueued / steps, 2),
        "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if CUDA else None,
        "loss": [round(losses[0].item(), 4), round(losses[-1].item(), 4)],
    }
    if PROFILE and not graph:
        row["top"] = profiled(step)
    return row


def profiled(step):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA] if CUDA else [ProfilerActivity.CPU]) as seen:
        for _ in range(2 if CUDA else 1):
            step()
        wait()
    total, calls = collections.Counter(), collections.Counter()
    for event in seen.events():
        time_us = (event.device_time if CUDA else event.cpu_time) or 0
        if CUDA and event.device_type.name != "CUDA":
            continue
        total[event.name[:100]] += time_us
        calls[event.name[:100]] += 1
    n = 2 if CUDA else 1
    rows = [[round(us / n / 1000, 3), calls[key] // n, key] for key, us in total.most_common(25)]
    print(f"   a step: {sum(total.values()) / n / 1000:.1f} ms in {sum(calls.values()) // n} kernels")
    for ms, count, key in rows:
        print(f"   {ms:8.2f} ms {count:5d}x  {key}")
    return rows


def wait():
    if CUDA:
        torch.cuda.synchronize()


if __name__ == "__main__":
    out, found = sys.argv[1], []
    skip = {str(STEPS)} if "--steps" in sys.argv else set()
    for name in [a for a in sys.argv[2:] if not a.startswith("--") and a not in skip]:
        try:
            row = run(name)
        except Exception as error:
            row = {
                "variant": name,
                "error": f"{type(error).__name__}: {str(error)[:400]}",
                "trace": traceback.format_exc()[-1500:],
            }
        found.append(row)
        print("train", {k: v for k, v in row.items() if k not in ("top", "trace")}, flush=True)
        with open(out, "w") as file:
            json.dump(found, file)
        if CUDA:
            import gc

            gc.collect()
            torch.cuda.empty_cache()
        torch._dynamo.reset()
