"""Plain beside fused, and a few tile and warp configurations of each kernel. python times.py OUT.json SECONDS [--small]"""

import contextlib
import itertools
import json
import sys
import time
import traceback

import torch
import torch.nn.functional as F
from checks import CUDA, DEV, IRN, SMALL, cl, deeplab, picture, unary
from torch import nn

OUT, END = sys.argv[1], time.perf_counter() + float(sys.argv[2])
ONLY = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv else None
ONCE = "--once" in sys.argv  # a single call of each: only to fill the compiler's cache
FOUND = {}


def ms(work, rep=60):
    """Median milliseconds of a call, L2 cleared between calls."""
    if not CUDA or ONCE:
        begin = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - begin)
    import triton.testing

    work()
    return triton.testing.do_bench(work, warmup=10, rep=rep, return_mode="median")


def wall(work, calls=5):
    """Milliseconds of a call as the host sees it, waiting at the end."""
    calls = calls if CUDA and not ONCE else 1
    work()
    wait()
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return 1000 * (time.perf_counter() - begin) / calls


def wait():
    if CUDA:
        torch.cuda.synchronize()


def row(section, name, work, **more):
    """Time a call and print it; what fails says why."""
    if time.perf_counter() > END:
        return None
    try:
        value = work()
        value = round(value, 5) if isinstance(value, float) else value
    except Exception as error:
        value = f"{type(error).__name__}: {str(error)[:160]}"
    FOUND.setdefault(section, {})[name] = {"ms": value, **more} if more else value
    print(f"{section:10s} {name:58s} {value} {more or ''}", flush=True)
    return value


@contextlib.contextmanager
def changed(module, kernel=None, options=None, **constants):
    """Other constants of a module, and other launch options of one of its kernels."""
    before = {key: getattr(module, key) for key in constants}
    launch = getattr(module, kernel) if kernel else None

    class Other:
        def __getitem__(self, grid):
            return lambda *a, **k: launch[grid](*a, **{**k, **options})

    for key, value in constants.items():
        setattr(module, key, value)
    if kernel:
        setattr(module, kernel, Other())
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(module, key, value)
        if kernel:
            setattr(module, kernel, launch)


def guarded(section):
    if time.perf_counter() > END:
        return print(f"{section.__name__}: no time left", flush=True)
    try:
        section()
    except Exception as error:
        FOUND.setdefault(section.__name__, {})["error"] = traceback.format_exc()[-1200:]
        print(f"{section.__name__} FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)
    with open(OUT, "w") as file:
        json.dump(FOUND, file)
    if CUDA:
        torch.cuda.empty_cache()
    return None


def ceilings():
    n = 2**20 if SMALL else 2**28
    a, b = torch.ones(n, device=DEV), torch.empty(n, device=DEV)
    t = row("ceiling", "copy", lambda: ms(lambda: b.copy_(a)))
    print(f"   {2 * 4 * n / t / 1e9:.2f} TB/s")
    FOUND["ceiling"]["tb_s"] = 2 * 4 * n / t / 1e9
    m = torch.randn(*(2 * [256 if SMALL else 8192]), device=DEV).bfloat16()
    t = row("ceiling", "bf16 product", lambda: ms(lambda: m @ m))
    FOUND["ceiling"]["bf16_tflop_s"] = 2 * len(m) ** 3 / t / 1e9
    print(f"   {FOUND['ceiling']['bf16_tflop_s']:.0f} TFLOP/s")


def crf():
    from wsss_cli.crf import mean_field as mf
    from wsss_cli.crf import order as o
    from wsss_cli.kernels import crf as k

    height, width = (15, 17) if SMALL else (375, 500)
    image = torch.from_numpy(picture(height, width)).to(DEV)
    features = o.pixel_features(image, 50.0, 5.0)
    energy = unary(21, height, width).to(DEV)
    order = o.kd_order([features])
    near = k.near_tiles(order.boxes, order.images, 3e-4)
    pairs = len(near.tiles) * k.QUERIES * k.KEYS
    row("crf", "kd_order (host)", lambda: wall(lambda: o.kd_order([features])))
    row(
        "crf",
        "near_tiles (host)",
        lambda: wall(lambda: k.near_tiles(order.boxes, order.images, 3e-4)),
        near_share=round(pairs / len(order.features) ** 2, 4),
    )
    for columns in (16, 32, 64):
        values = torch.rand(len(order.source), columns, device=DEV).half()
        row(
            "crf",
            f"gaussian_sums, {columns} columns",
            lambda: ms(lambda: k.gaussian_sums(order.features, order.centres, values, near)),
            gpairs=round(pairs / 1e9, 3),
            mufu_floor_ms=round(pairs / (132 * 16 * 1.755e9) * 1e3, 3),
        )
    values = torch.rand(len(order.source), 32, device=DEV).half()
    for options in ({"num_stages": 3}, {"num_stages": 6}, {"maxnreg": 64}, {"num_warps": 8}, {"num_stages": 2}):
        with changed(k, "_spread", options):
            row(
                "crf",
                f"sums, 32 columns, {options}",
                lambda: ms(lambda: k.gaussian_sums(order.features, order.centres, values, near)),
            )
    for queries, keys, warps, stages in (
        (128, 64, 8, 3),
        (128, 32, 8, 5),
        (128, 64, 8, 5),
        (64, 64, 4, 5),
        (64, 32, 4, 3),
    ):

        def other(queries=queries, keys=keys, warps=warps, stages=stages):
            options = {"num_warps": warps, "num_stages": stages}
            o._plan.cache_clear()
            with changed(k, "_spread", options, QUERIES=queries, KEYS=keys), changed(o, BLOCK=queries, LEAF=keys):
                new = o.kd_order([features])
                close = k.near_tiles(new.boxes, new.images, 3e-4)
                v = torch.rand(len(new.source), 32, device=DEV).half()
                made = ms(lambda: k.gaussian_sums(new.features, new.centres, v, close))
                print(f"   near {len(close.tiles) * queries * keys / len(new.source) ** 2:.4f}")
            o._plan.cache_clear()
            return made

        row("crf", f"sums, 32 columns, tiles {queries}x{keys}, {warps} warps, {stages} stages", other)
    for tolerance in (1e-4, 3e-4, 1e-3, 1e-2):
        row(
            "crf",
            f"mean_field, 21 labels, 10 iterations, tolerance {tolerance:g} (host)",
            lambda: wall(lambda: mf.mean_field([image], [energy], iterations=10, tolerance=tolerance, **IRN)),
        )
    spatial = mf._spatial([(height, width)], 3.0, energy)
    flat = torch.rand(height * width, 21, device=DEV)
    row("crf", "spatial sums, full float32", lambda: ms(lambda: spatial(flat)))
    host_image, host_energy = image.cpu(), energy.cpu()
    row(
        "crf",
        "from arrays to arrays, one image",
        lambda: wall(
            lambda: (
                mf.mean_field([host_image.to(DEV)], [host_energy.to(DEV)], iterations=10, tolerance=3e-4, **IRN)[0]
                .cpu()
                .numpy()
            )
        ),
    )
    four = [image] * 4, [energy] * 4
    row(
        "crf",
        "mean_field of 4 images at once, a 4th of it (host)",
        lambda: wall(lambda: mf.mean_field(*four, iterations=10, tolerance=3e-4, **IRN), 2) / 4,
    )
    if CUDA:
        exact, loose = (mf.mean_field([image], [energy], iterations=10, tolerance=t, **IRN)[0] for t in (1e-7, 3e-4))
        row(
            "crf",
            "tolerance 3e-4 beside 1e-7: max |dQ|, labels same",
            lambda: (
                f"{(exact - loose).abs().max().item():.1e}, {(exact.argmax(1) == loose.argmax(1)).float().mean().item():.6f}"
            ),
        )


def walk():
    from wsss_cli.kernels import walk as k
    from wsss_cli.pseudo.pairs import boundary_affinities, half_disc

    height, width = (6, 17) if SMALL else (94, 125)
    offsets = half_disc(3 if SMALL else 5)
    weights = boundary_affinities(torch.rand(height, width, device=DEV) ** 3, offsets) ** 10
    steps = 2 if SMALL else 256
    for classes in (2, 21):
        maps = torch.rand(classes, height, width, device=DEV)
        row(
            "walk",
            f"{classes} classes, {steps} steps (host)",
            lambda: wall(lambda: k.random_walk(maps, weights, offsets, steps)),
        )
    for rows, columns, unroll in ((4, 16, 4), (4, 16, 17), (2, 32, 8), (8, 16, 8), (8, 8, 8), (4, 16, 34)):

        def other(rows=rows, columns=columns, unroll=unroll):
            with changed(k, ROWS=rows, COLUMNS=columns, UNROLL=unroll):
                return wall(lambda: k.random_walk(maps, weights, offsets, steps))

        row("walk", f"21 classes, tile {rows}x{columns}, unroll {unroll} (host)", other)
    if CUDA:
        with changed(k, GRAPH_STEPS=10**9):
            row(
                "walk",
                "21 classes, without a graph (host)",
                lambda: wall(lambda: k.random_walk(maps, weights, offsets, steps)),
            )


def par():
    from wsss_cli.pseudo.par import par as both

    height, width = (9, 11) if SMALL else (188, 250)
    image = torch.from_numpy(picture(height, width)).to(DEV).permute(2, 0, 1)[None].float()
    keywords = {
        "dilations": (1,) if SMALL else (1, 2, 4, 8, 12, 24),
        "iterations": 1 if SMALL else 10,
        "w1": 0.3,
        "w2": 0.01,
    }
    for classes in (3, 42):
        planes = torch.rand(1, classes, height, width, device=DEV)
        for backend in ("torch", "triton"):
            row(
                "par",
                f"{classes} planes, {backend} (host)",
                lambda: wall(lambda: both(image, planes, backend=backend, **keywords)),
            )


def ce():
    from wsss_cli.kernels import cross_entropy as k
    from wsss_cli.losses.cross_entropy import cross_entropy

    cases = (((4, 4), (8, 8)),) if SMALL else (((128, 128), (512, 512)), ((64, 64), (512, 512)))
    for size, out in cases:
        batch = 1 if SMALL else 16
        logits = cl(torch.randn(batch, 21, *size, device=DEV)).bfloat16().requires_grad_()
        target = torch.randint(0, 21, (batch, *out), device=DEV)

        def step(kernels):
            loss = cross_entropy(logits, target, kernels=kernels)
            torch.autograd.grad(loss, logits)

        for kernels in ("plain", "fused"):
            row("loss", f"{kernels}, {size[0]}, forward + backward", lambda: ms(lambda: step(kernels)))
            row(
                "loss",
                f"{kernels}, {size[0]}, forward",
                lambda: ms(lambda: cross_entropy(logits.detach(), target, kernels=kernels)),
            )
        for kernel in ("cross_entropy_forward", "cross_entropy_backward"):
            for warps in (1, 2, 8):
                with changed(k, kernel, {"num_warps": warps}):
                    row(
                        "loss",
                        f"{size[0]}, {kernel}, {warps} warps: forward + backward",
                        lambda: ms(lambda: step("fused")),
                    )


def depthwise():
    from wsss_cli.kernels import depthwise as k

    cases = ((1, 5, 4, 5, 2),) if SMALL else ((16, 2048, 64, 64, 12), (16, 560, 128, 128, 1))
    for batch, channels, height, width, dilation in cases:
        x = cl(torch.randn(batch, channels, height, width, device=DEV)).bfloat16().requires_grad_()
        w = torch.randn(channels, 1, 3, 3, device=DEV).requires_grad_()
        half = w.detach().bfloat16().requires_grad_()
        slope = cl(torch.randn_like(x))
        gb = 2 * 2 * x.numel() / 1e9
        name = f"{channels} ch, dilation {dilation}"
        nhwc, grad = x.detach().permute(0, 2, 3, 1), slope.permute(0, 2, 3, 1)
        row(
            "depthwise",
            f"{name}: cuDNN/ATen forward",
            lambda: ms(lambda: F.conv2d(x.detach(), half.detach(), None, 1, dilation, dilation, channels)),
            gb=gb,
        )

        def plain():
            out = F.conv2d(x, half, None, 1, dilation, dilation, channels)
            torch.autograd.grad(out, (x, half), slope)

        def fused():
            out = k.depthwise3x3(x, w, dilation)
            torch.autograd.grad(out, (x, w), slope)

        row("depthwise", f"{name}: plain forward + backward", lambda: ms(plain))
        row("depthwise", f"{name}: kernels forward + backward", lambda: ms(fused))
        row(
            "depthwise",
            f"{name}: kernel forward",
            lambda: ms(lambda: k._convolve(nhwc, w.detach(), dilation, mirror=False)),
            gb=gb,
        )
        row(
            "depthwise",
            f"{name}: kernel weight gradient",
            lambda: ms(lambda: k._weight_gradient(nhwc, grad, dilation)),
            gb=gb,
        )
        for pixels, block, warps in ((32, 64, 4), (64, 64, 4), (32, 64, 8), (32, 128, 8), (16, 64, 2), (32, 32, 4)):
            with changed(k, "depthwise_forward", {"num_warps": warps}, PIXELS=pixels, CHANNELS=block):
                row(
                    "depthwise",
                    f"{name}: forward, {pixels}x{block}, {warps} warps",
                    lambda: ms(lambda: k._convolve(nhwc, w.detach(), dilation, mirror=False)),
                )
        for pixels, warps, programs in ((32, 4, 528), (16, 8, 528), (8, 4, 792), (16, 4, 1056), (16, 4, 2112)):
            with changed(k, "depthwise_weight", {"num_warps": warps}, CHUNK_PIXELS=pixels, PROGRAMS=programs):
                row(
                    "depthwise",
                    f"{name}: weight gradient, {pixels} pixels, {warps} warps, {programs} programs",
                    lambda: ms(lambda: k._weight_gradient(nhwc, grad, dilation)),
                )


def bn():
    from wsss_cli.kernels import batch_norm as k

    shapes = ((2, 5, 3, 4),) if SMALL else ((16, 256, 128, 128), (16, 2048, 64, 64), (16, 64, 256, 256))
    for shape in shapes:
        x = cl(torch.randn(shape, device=DEV)).bfloat16().requires_grad_()
        res = cl(torch.randn(shape, device=DEV)).bfloat16().requires_grad_()
        slope = cl(torch.randn(shape, device=DEV)).bfloat16()
        gb = 2 * x.numel() / 1e9
        plain = nn.BatchNorm2d(shape[1]).to(DEV)
        mine = nn.BatchNorm2d(shape[1]).to(DEV)
        mine.__class__ = k.FusedBatchNorm2d
        mine.relu = True
        for residual in (False, True):

            def step(norm, residual=residual):
                out = norm(x, res) if (norm is mine and residual) else norm(x)
                if norm is plain:
                    out = F.relu(out + res if residual else out)
                torch.autograd.grad(out, (x, norm.weight, norm.bias, *((res,) if residual else ())), slope)

            passes = 11 if residual else 8
            for name, norm in (("plain", plain), ("fused", mine)):
                t = row("bn", f"{shape} residual {residual}, {name}", lambda: ms(lambda: step(norm)))
                if isinstance(t, float):
                    print(f"   {passes * gb / t:.2f} TB/s by the {passes} passes of the fused one")
        x.detach().permute(0, 2, 3, 1)
        for rows, channels, warps, programs in (
            (32, 64, 4, 660),
            (16, 64, 4, 1024),
            (64, 64, 8, 1024),
            (16, 128, 4, 1024),
            (32, 64, 4, 1024),
            (32, 64, 4, 1320),
            (32, 64, 8, 1056),
        ):
            with contextlib.ExitStack() as stack:
                stack.enter_context(changed(k, ROWS=rows, CHANNELS=channels, PROGRAMS=programs))
                for kernel in ("batch_norm_statistics", "batch_norm_reduce", "batch_norm_apply", "batch_norm_gradient"):
                    stack.enter_context(changed(k, kernel, {"num_warps": warps}))
                row(
                    "bn",
                    f"{shape} fused, residual, {rows}x{channels}, {warps} warps, {programs} programs",
                    lambda: ms(lambda: step(mine)),
                )
    for _pixels in () if SMALL else (16,):
        x = cl(torch.randn(16, 512, 8, 8, device=DEV)).bfloat16()
        norm = nn.BatchNorm2d(512).to(DEV)
        row("bn", "small map, plain forward: host ms a layer", lambda: wall(lambda: F.relu(norm(x)), 100))
        norm.__class__, norm.relu = k.FusedBatchNorm2d, True
        row("bn", "small map, fused forward: host ms a layer", lambda: wall(lambda: norm(x), 100))


def cam():
    from wsss_cli.cam.multiscale import bucket_size, image_batch, multiscale_cam
    from wsss_cli.models.backbones import build_backbone
    from wsss_cli.models.classifier import CamClassifier

    class Plain:
        def __init__(self, model):
            self.normalise, self.cam = model.backbone.normalise, model.cam

    model = CamClassifier(build_backbone("resnet26d" if SMALL else "resnet50c", output_stride=16, weights="none"), 21)
    model = model.to(DEV, memory_format=torch.channels_last).eval().requires_grad_(False)
    images = [picture(*((40, 50) if SMALL else (375, 500)), seed=n) for n in range(2 if SMALL else 24)]
    scales = (1.0, 0.5) if SMALL else (1.0, 0.5, 1.5, 2.0)

    def sweep(network):
        with torch.autocast(DEV.type, torch.bfloat16):
            return multiscale_cam(Plain(network), images, scales, True, DEV)

    def resizing():
        size = bucket_size(*images[0].shape[:2])
        for s in scales:
            image_batch(images, bucket_size(round(size[0] * s), round(size[1] * s), 16), DEV, shrink=s < 1)

    t = row("cam", f"{len(images)} images, {len(scales)} scales + flip (host)", lambda: wall(lambda: sweep(model), 3))
    if isinstance(t, float):
        print(f"   {1000 * len(images) / t:.0f} images/s")
    row("cam", "of it resizing on the host and copying", lambda: wall(resizing, 3))
    if CUDA:
        torch.backends.cudnn.benchmark = True
        row("cam", "the same with cudnn.benchmark", lambda: wall(lambda: sweep(model), 3))
        torch.backends.cudnn.benchmark = False
    folded = fold(model)
    row("cam", "the same with batch norm folded into the convolutions", lambda: wall(lambda: sweep(folded), 3))
    row("cam", "folded, channels_last, bf16 weights", lambda: wall(lambda: sweep(fold(model).bfloat16()), 1))


def fold(model):
    """A copy whose convolutions have taken in the batch norm after them (timm's names: conv1/bn1, downsample.1/.2, stem)."""
    import copy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        names = [name for name, _ in module.named_children()]
        pairs = [(a, b) for a, b in itertools.pairwise(names)]
        pairs += [(f"conv{n}", f"bn{n}") for n in (1, 2, 3)] + [("conv", "bn")]
        for a, b in pairs:
            conv, norm = getattr(module, a, None), getattr(module, b, None)
            if isinstance(conv, nn.Sequential) and len(conv) and a == "conv1":
                holder, key = conv, str(len(conv) - 1)
                conv = conv[-1]
            else:
                holder, key = module, a
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d and conv.out_channels == norm.num_features:
                holder._modules[key] = fuse_conv_bn_eval(conv, norm)
                module._modules[b] = nn.Identity()
    return model.to(memory_format=torch.channels_last)


def infer():
    size = 64 if SMALL else 512
    model = deeplab()
    model = model.to(DEV, memory_format=torch.channels_last).eval().requires_grad_(False)
    folded = fold(model)
    x = cl(torch.randn(2, 3, size, size, device=DEV))
    left = sum(type(m) is nn.BatchNorm2d for m in folded.modules())
    with torch.no_grad():
        row(
            "infer",
            "folded beside plain, float32: relative difference",
            lambda: f"{((folded(x) - model(x)).norm() / model(x).norm()).item():.1e}, batch norms left {left}",
        )
    half = fold(model).bfloat16().to(memory_format=torch.channels_last)
    for batch in (1,) if SMALL else (1, 16):
        x = cl(torch.randn(batch, 3, size, size, device=DEV))
        y = x.bfloat16()

        def eager(network, given, cast):
            with torch.no_grad(), torch.autocast(DEV.type, torch.bfloat16, enabled=cast):
                return network(given)

        variants = [
            ("as it is (autocast)", model, x, True),
            ("folded (autocast)", folded, x, True),
            ("folded, bf16 weights", half, y, False),
        ]
        for bench in (False, True):
            if CUDA:
                torch.backends.cudnn.benchmark = bench
            for name, network, given, cast in variants:
                t = row(
                    "infer",
                    f"b{batch} {name}, cudnn.benchmark {bench} (host)",
                    lambda: wall(lambda: eager(network, given, cast), 20),
                )
                if isinstance(t, float):
                    print(f"   {1000 * batch / t:.0f} images/s")
        if CUDA:

            def graphed():
                eager(half, y, False)
                wait()
                graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    eager(half, y, False)
                torch.cuda.current_stream().wait_stream(stream)
                with torch.cuda.graph(graph):
                    eager(half, y, False)
                return wall(graph.replay, 20)

            t = row("infer", f"b{batch} folded, bf16 weights, CUDA graph (host)", graphed)
            if isinstance(t, float):
                print(f"   {1000 * batch / t:.0f} images/s")
    if CUDA:
        torch.backends.cudnn.benchmark = False

        def planning(first):
            begin = time.perf_counter()
            for n in range(6):
                eager(model, cl(torch.randn(2, 3, 401 + 8 * n, 507 + 16 * n, device=DEV)), True)
                wait()
            return 1000 * (time.perf_counter() - begin) / 6

        row("infer", "a new shape, first time (host): plans of all convolutions", lambda: planning(True))
        row("infer", "the same shapes again (host)", lambda: planning(False))


def pairs():
    """Losses over pairs of pixels: loops of plain torch, as the host sees them, and the kernels."""
    from wsss_cli.kernels import gated_crf as g
    from wsss_cli.kernels import pair_losses as k
    from wsss_cli.losses.gated_crf import gated_crf_energy
    from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
    from wsss_cli.pseudo.pairs import half_disc

    batch, side, radius = (1, 7, 3) if SMALL else (16, 128, 10)
    logits = torch.randn(batch, side, side, device=DEV, requires_grad=True)
    labels = torch.randint(0, 3, (batch, side, side), device=DEV, dtype=torch.uint8)
    features = torch.randn((1, 3, 5, 7) if SMALL else (8, 448, 56, 56), device=DEV, requires_grad=True)
    coarse = labels[: len(features), : features.shape[2], : features.shape[3]].contiguous()
    p = torch.rand(batch, 21, side, side, device=DEV).softmax(1).requires_grad_()
    gate = torch.ones(batch, side, side, dtype=torch.bool, device=DEV)
    colours = 60 * torch.rand(batch, 3, side, side, device=DEV)
    reach = 2 if SMALL else 5

    def irn(kernels):
        torch.autograd.grad(boundary_loss(logits, labels, half_disc(radius), kernels), logits)

    def psa(kernels):
        torch.autograd.grad(feature_loss(features, coarse, half_disc(reach), kernels), features)

    def gated(kernels):
        torch.autograd.grad(gated_crf_energy(p, colours, gate, reach, 6.0, 25.5, fused=kernels == "fused"), p)

    for name, step in (("IRN, radius 10", irn), ("PSA, radius 5", psa), ("gated CRF, radius 5", gated)):
        row("pairs", f"{name}: fused, forward + backward", lambda: ms(lambda: step("fused")))
        row("pairs", f"{name}: fused, forward + backward (host)", lambda: wall(lambda: step("fused"), 20))
        row("pairs", f"{name}: plain, forward + backward (host)", lambda: wall(lambda: step("plain"), 2))
    row("pairs", "IRN: counts alone", lambda: ms(lambda: k.pair_numbers(labels, half_disc(radius))))
    smooth = torch.nn.functional.avg_pool2d(logits.detach(), 9, 1, 4).requires_grad_()
    row(
        "pairs",
        "IRN: fused, smooth logits (many slopes at one place)",
        lambda: ms(lambda: torch.autograd.grad(boundary_loss(smooth, labels, half_disc(radius), "fused"), smooth)),
    )
    for group, pixels, warps in ((8, 128, 4), (38, 128, 4), (152, 128, 4), (19, 256, 8), (19, 64, 2)):
        with changed(k, "boundary_pairs", {"num_warps": warps}, GROUP=group, PIXELS=pixels):
            row("pairs", f"IRN: {group} offsets, {pixels} pixels, {warps} warps", lambda: ms(lambda: irn("fused")))
    for channels, pixels, warps in ((8, 64, 4), (16, 64, 8), (16, 32, 4), (8, 128, 4), (4, 128, 4)):
        with (
            changed(k, "feature_pairs", {"num_warps": warps}, CHANNELS=channels, FEATURE_PIXELS=pixels),
            changed(k, "feature_gradient", {"num_warps": warps}),
        ):
            row("pairs", f"PSA: {channels} channels, {pixels} pixels, {warps} warps", lambda: ms(lambda: psa("fused")))
    for pixels, warps in ((64, 2), (64, 4), (128, 8), (256, 8)):
        with changed(g, "gated_crf_messages", {"num_warps": warps}, PIXELS=pixels):
            row("pairs", f"gated CRF: {pixels} pixels, {warps} warps", lambda: ms(lambda: gated("fused")))


def loops():
    """Python loops over offsets and parameters: how long the host takes to launch them."""
    from wsss_cli.metrics.on_device import DeviceConfusion
    from wsss_cli.models.average import Average

    model = deeplab().to(DEV)
    teacher = Average(model, 0.999)
    row("loops", "teacher follows R50 (host)", lambda: wall(lambda: teacher.follow(model, 5)))
    size = (2, 7, 9) if SMALL else (22, 375, 500)
    pred, truth = (
        torch.where(torch.rand(size, device=DEV) < 0.7, 0, torch.randint(0, 21, size, device=DEV)).to(torch.uint8)
        for _ in range(2)
    )
    there = DeviceConfusion(21, DEV)
    row("loops", "confusion of 22 photographs, 7 of 10 pixels one cell", lambda: ms(lambda: there.add(pred, truth)))


if __name__ == "__main__":
    if CUDA:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for section in (ceilings, crf, depthwise, bn, ce, infer, walk, cam, pairs, loops, par):
        if ONLY is None or section.__name__ in ONLY:
            guarded(section)
    print("times done", flush=True)
