"""Each kernel on inputs of real size beside a torch reference. One line a check; a failure ends its check alone.

python checks.py GROUP OUT.json [--small]      GROUP: crf walk par ce pairs depthwise bn fused stages
Run each group in a process of its own: an illegal access poisons the CUDA context of its process only.
"""

import copy
import json
import math
import sys
import time
import traceback

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SMALL = "--small" in sys.argv
DEV = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CUDA = DEV.type == "cuda"
FOUND = []


def check(name, limit=None):
    """Run now; the function gives an error (compared with `limit`) or a bool, and may add a remark."""

    def run(function):
        begin, row = time.perf_counter(), {"check": name, "limit": limit}
        try:
            made = function()
            value, note = made if isinstance(made, tuple) else (made, "")
            if CUDA:
                torch.cuda.synchronize()
            row |= {"value": float(value), "note": note}
            row["ok"] = bool(value) if limit is None else bool(float(value) <= limit)
        except Exception as error:
            row |= {
                "ok": False,
                "note": f"{type(error).__name__}: {str(error)[:300]}",
                "trace": traceback.format_exc()[-1500:],
            }
        row["s"] = round(time.perf_counter() - begin, 2)
        FOUND.append(row)
        print(
            f"{'ok  ' if row['ok'] else 'FAIL'} {name}: {row.get('value', '-')} (limit {limit}) {row['note']} [{row['s']} s]",
            flush=True,
        )
        return function

    return run


def rel(found, expected):
    found, expected = found.double(), expected.double().to(found.device)
    if not torch.isfinite(found).all():
        return float("nan")
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def poison():
    """Memory that is handed out next holds NaN."""
    if CUDA:
        for size in (2**20, 2**24, 2**27, 2**29):
            torch.full((size,), math.nan, device=DEV)


def cl(x):
    return x.contiguous(memory_format=torch.channels_last)


def picture(height, width, seed=0):
    """A photograph-like image: regions, gradients, noise."""
    rng = np.random.default_rng(seed)
    import cv2

    noise = rng.random((height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    base = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    regions = cv2.resize(rng.random((4, 5, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    return (255 * np.clip(0.3 * base + 0.6 * regions + 0.02 * rng.standard_normal((height, width, 3)), 0, 1)).astype(
        np.uint8
    )


def unary(labels, height, width, seed=0, stacks=1):
    logits = 2 * torch.randn(stacks, labels, height, width, generator=torch.Generator().manual_seed(seed))
    return -logits.log_softmax(1)


IRN = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 50.0, "bilateral_srgb": 5.0, "bilateral_compat": 10.0}


def crf():
    from wsss_cli.crf.mean_field import mean_field
    from wsss_cli.crf.order import SCALE, kd_order, pixel_features
    from wsss_cli.kernels import crf as k

    height, width = (17, 19) if SMALL else (375, 500)
    image = torch.from_numpy(picture(height, width)).to(DEV)

    def sums(features, columns, tolerance):
        order = kd_order([features])
        near = k.near_tiles(order.boxes, order.images, tolerance)
        width_ = next((s for s in (16, 32) if columns <= s), -(-columns // 64) * 64)
        values = torch.rand(len(features), columns, device=DEV, generator=torch.Generator(DEV).manual_seed(1))
        rows = torch.zeros(len(order.source), width_, dtype=torch.float16, device=DEV)
        rows[:, :columns] = values.half()[order.source] * order.real[:, None]
        poison()
        found = k.gaussian_sums(order.features, order.centres, rows, near)
        again = k.gaussian_sums(order.features, order.centres, rows, near)
        some = torch.randperm(len(features), generator=torch.Generator().manual_seed(2))[:512].to(DEV)
        f = features.double() * SCALE
        kernel = torch.exp2(-(f[some, None] - f[None]).square().sum(2))
        share = len(near.tiles) / (len(near.offsets) - 1) / len(order.boxes)
        return (
            rel(found[order.place][some, :columns], kernel @ values.half().double()),
            torch.equal(found, again),
            share,
        )

    for columns in (3, 21, 42, 81):

        @check(f"crf sums {height}x{width}, {columns} columns, tolerance 1e-4", 2e-3)
        def _(columns=columns):
            error, same, share = sums(pixel_features(image, 50.0, 5.0), columns, 1e-4)
            return error, f"same bits {same}, near {100 * share:.1f} %"

    @check("crf exponent far from the middle (noise, srgb 3): tensor-core rounding", 4e-3)
    def _():
        noise = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (8, 16, 3)).astype(np.uint8)).to(DEV)
        return sums(pixel_features(noise, 50.0, 3.0), 1, 0.0)[0], "the test of the same name allows 2e-3"

    @check("crf near tiles against torch", 0)
    def _():
        order = kd_order([pixel_features(image, 50.0, 5.0)])
        near = k.near_tiles(order.boxes, order.images, 1e-4)
        boxes, limit, wrong = order.boxes, -math.log2(1e-4), 0
        offsets = near.offsets.tolist()
        for block in range(0, len(order.images), max(len(order.images) // 16, 1)):
            own = boxes[2 * block : 2 * block + 2]
            low, high = own[:, :5].amin(0), own[:, 5:].amax(0)
            gap = torch.maximum(boxes[:, :5] - high, low - boxes[:, 5:]).clamp(min=0).square().sum(1)
            expected = (gap <= limit).nonzero()[:, 0]
            mine = near.tiles[offsets[block] : offsets[block + 1]].long()
            wrong += int(len(mine) != len(expected) or not torch.equal(mine, expected))
        return wrong

    @check("crf posterior 21 labels, 10 iterations: tolerance 3e-4 beside 1e-7", 1e-2)
    def _():
        energy = unary(21, height, width).to(DEV)
        found, exact = (mean_field([image], [energy], iterations=10, tolerance=t, **IRN)[0] for t in (3e-4, 1e-7))
        return (
            found - exact
        ).abs().max().item(), f"labels same {100 * (found.argmax(1) == exact.argmax(1)).float().mean():.3f} %"

    # float16 values alone, summed in float64, move single pixels by 0.028 after five iterations
    @check("crf posterior beside float64 over all pairs (small image)", 5e-2)
    def _():
        small = torch.from_numpy(picture(12, 11)) if SMALL else torch.from_numpy(picture(64, 72))
        energy = unary(5, *small.shape[:2])
        errors = []
        for iterations in (1, 2, 3, 5):
            exact = mean_field([small.to(DEV)], [energy.to(DEV).double()], iterations=iterations, **IRN)[0]
            found = mean_field([small.to(DEV)], [energy.to(DEV)], iterations=iterations, tolerance=1e-4, **IRN)[0]
            errors.append((found - exact).abs().max().item())
        same = (found.argmax(1) == exact.argmax(1)).float().mean().item()
        return (
            errors[-1],
            f"after 1, 2, 3 iterations {errors[:3]}, mean {(found - exact).abs().mean().item():.1e}, labels same {same:.6f}",
        )

    @check("crf two images of two sizes at once (each as alone, to the bit)", 1e-2)
    def _():
        images = [
            torch.from_numpy(picture(*s, seed=n)).to(DEV)
            for n, s in enumerate(((9, 17), (14, 10)) if SMALL else ((375, 500), (500, 333)))
        ]
        energies = [unary(3, *i.shape[:2], seed=n).to(DEV) for n, i in enumerate(images)]
        both = mean_field(images, energies, iterations=3, tolerance=1e-4, **IRN)
        alone = [
            mean_field([i], [e], iterations=3, tolerance=1e-4, **IRN)[0] for i, e in zip(images, energies, strict=False)
        ]
        return max((a - b).abs().max().item() for a, b in zip(both, alone, strict=False))


def stencil(maps, affinities, offsets, iterations):
    _, height, width = maps.shape
    taps = []
    for plane, (dy, dx) in zip(affinities.double(), offsets, strict=False):
        rows, columns = slice(0, height - dy), slice(max(-dx, 0), width - max(dx, 0))
        there = slice(dy, height), slice(max(dx, 0), width - max(-dx, 0))
        taps += [((rows, columns), there, plane[rows, columns]), (there, (rows, columns), plane[rows, columns])]
    degree = maps.new_ones(height, width, dtype=torch.float64)
    for place, _, weight in taps:
        degree[place] += weight
    now = maps.double()
    for _ in range(iterations):
        new = now.clone()
        for place, there, weight in taps:
            new[(slice(None), *place)] += weight * now[(slice(None), *there)]
        now = new / degree
    return now


def walk():
    from wsss_cli.kernels.walk import random_walk
    from wsss_cli.pseudo.pairs import boundary_affinities, half_disc

    for classes, iterations, radius in ((21, 256, 5), (2, 256, 5), (5, 47, 5), (1, 1, 10)):
        height, width = (5, 17) if SMALL else (94, 125)
        iterations = min(iterations, 3) if SMALL else iterations

        @check(f"walk {classes} classes, {iterations} steps, radius {radius}", 1e-4)
        def _(classes=classes, iterations=iterations, radius=radius):
            rng = torch.Generator(DEV).manual_seed(classes)
            edge = torch.rand(height, width, device=DEV, generator=rng) ** 3
            maps = torch.rand(classes, height, width, device=DEV, generator=rng)
            offsets = half_disc(3 if SMALL else radius)
            weights = boundary_affinities(edge, offsets) ** 10
            poison()
            first, second = (random_walk(maps, weights, offsets, iterations) for _ in range(2))
            return (
                first.double() - stencil(maps, weights, offsets, iterations)
            ).abs().max().item(), f"same bits {torch.equal(first, second)}"


def par():
    from wsss_cli.pseudo.par import par as both

    for batch, classes, height, width in (
        ((1, 3, 9, 11),) if SMALL else ((1, 3, 188, 250), (1, 42, 188, 250), (3, 5, 97, 131))
    ):

        @check(f"PAR {batch}x{classes}x{height}x{width}", 2e-4)
        def _(batch=batch, classes=classes, height=height, width=width):
            image = (
                torch.from_numpy(np.stack([picture(height, width, n) for n in range(batch)]))
                .to(DEV)
                .permute(0, 3, 1, 2)
                .float()
            )
            planes = torch.rand(batch, classes, height, width, device=DEV)
            keywords = {
                "dilations": (1, 2) if SMALL else (1, 2, 4, 8, 12, 24),
                "iterations": 2 if SMALL else 10,
                "w1": 0.3,
                "w2": 0.01,
            }
            poison()
            found = both(image, planes, backend="triton", **keywords)
            return (
                found - both(image, planes, backend="torch", **keywords)
            ).abs().max().item(), f"same bits {torch.equal(found, both(image, planes, backend='triton', **keywords))}"


def ce():
    from wsss_cli.kernels.cross_entropy import upsampled_cross_entropy

    cases = (
        ((1, 3, (2, 3), (5, 6)),)
        if SMALL
        else ((16, 21, (128, 128), (512, 512)), (16, 21, (64, 64), (512, 512)), (4, 81, (129, 127), (512, 509)))
    )
    for batch, classes, size, out in cases:
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):

            @check(f"loss {batch}x{classes}x{size[0]}x{size[1]} {dtype}: gradient", limit)
            def _(batch=batch, classes=classes, size=size, out=out, dtype=dtype, limit=limit):
                logits = cl(3 * torch.randn(batch, classes, *size, device=DEV)).to(dtype).requires_grad_()
                target = torch.randint(0, classes, (batch, *out), device=DEV, dtype=torch.uint8)
                target[torch.rand(target.shape, device=DEV) < 0.1] = 255
                weight = torch.rand(target.shape, device=DEV) if classes == 81 else None
                poison()
                total, count = upsampled_cross_entropy(logits, target, weight)
                (grad,) = torch.autograd.grad(total, logits, retain_graph=True)
                (again,) = torch.autograd.grad(total, logits)
                exact = logits.detach().double().requires_grad_()
                cost = F.cross_entropy(
                    F.interpolate(exact, out, mode="bilinear"), target.long(), ignore_index=255, reduction="none"
                )
                expected = (cost if weight is None else cost * weight).sum()
                (expected_grad,) = torch.autograd.grad(expected, exact)
                loss = abs(total.item() / expected.item() - 1)
                good = loss < 1e-5 and int(count) == int((target != 255).sum()) and torch.equal(grad, again)
                return (
                    rel(grad, expected_grad) if good else math.inf
                ), f"loss rel {loss:.1e}, same bits {torch.equal(grad, again)}"


def pairs():
    """Gated CRF, IRN's and PSA's losses: gradient beside float64 (value to 1e-5), the same bits twice."""
    from wsss_cli.losses import gated_crf
    from wsss_cli.pseudo import affinity_loss as a
    from wsss_cli.pseudo.pairs import half_disc

    def compared(compute, exact):
        poison()
        value, gradient = compute()
        same = all(torch.equal(*pair) for pair in zip((value, gradient), compute(), strict=True))
        right, slope = exact()
        off = abs(value.item() / right.item() - 1)
        return (rel(gradient, slope) if off < 1e-5 and same else math.inf), f"value rel {off:.1e}, same bits {same}"

    for batch, classes, side, radius in ((1, 3, 7, 2),) if SMALL else ((16, 21, 128, 5), (2, 2, 67, 5), (1, 81, 97, 3)):

        @check(f"gated CRF {batch}x{classes}x{side}x{side + 1}, radius {radius}", 1e-5)
        def _(batch=batch, classes=classes, side=side, radius=radius):
            from wsss_cli.kernels.gated_crf import messages_and_energy

            p = (2 * torch.randn(batch, classes, side, side + 1, device=DEV)).softmax(1)
            image = torch.rand(batch, 3, side, side + 1, device=DEV) * 60
            gate = torch.rand(batch, side, side + 1, device=DEV) < 0.9

            def energy(way, dtype):
                messages, value = way(p.to(dtype), image.to(dtype), gate, radius, 6.0, 25.5)
                return value, messages

            return compared(
                lambda: energy(messages_and_energy, torch.float32),
                lambda: energy(gated_crf._messages_and_energy, torch.float64),
            )

    for name, shape, radius in (
        (("IRN", (1, 7, 9), 3), ("PSA", (1, 5, 7, 9), 3))
        if SMALL
        else (
            ("IRN", (16, 128, 128), 10),
            ("IRN", (3, 67, 131), 5),
            ("PSA", (8, 448, 56, 56), 5),
            ("PSA", (2, 30, 33, 17), 10),
        )
    ):

        @check(f"{name} pairs {'x'.join(map(str, shape))}, radius {radius}", 1e-5)
        def _(name=name, shape=shape, radius=radius):
            x = 2 * torch.randn(shape, device=DEV)
            size = (shape[0], -(-shape[-2] // 6), -(-shape[-1] // 6))  # blocks of 6 x 6, so that all kinds are there
            labels = torch.randint(0, 4, size, device=DEV, dtype=torch.uint8)
            labels[labels == 3] = 255
            labels = labels.repeat_interleave(6, 1).repeat_interleave(6, 2)[:, : shape[-2], : shape[-1]].contiguous()
            offsets = half_disc(radius)
            counts = a._fused_numbers(labels, offsets)
            if counts.tolist() != a._numbers(labels, offsets).tolist():
                return math.inf, "counts differ"
            shares = a._weights(DEV).double() / counts.clamp(min=1)
            fused, plain = (a._fused_boundary, a._boundary) if name == "IRN" else (a._fused_feature, a._feature)
            given = {"labels": labels, "offsets": offsets}
            return compared(
                lambda: fused(x, **given, shares=shares.float()), lambda: plain(x.double(), **given, shares=shares)
            )


def depthwise():
    from wsss_cli.kernels.depthwise import depthwise3x3

    cases = (
        ((1, 5, 4, 5, 2),)
        if SMALL
        else ((4, 2048, 64, 64, 12), (4, 2048, 64, 64, 36), (4, 560, 128, 128, 1), (3, 72, 65, 63, 1))
    )
    for batch, channels, height, width, dilation in cases:
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):

            @check(f"depthwise {batch}x{channels}x{height}x{width} dilation {dilation} {dtype}", limit)
            def _(batch=batch, channels=channels, height=height, width=width, dilation=dilation, dtype=dtype):
                x = cl(torch.randn(batch, channels, height, width, device=DEV)).to(dtype).requires_grad_()
                weight = (0.3 * torch.randn(channels, 1, 3, 3, device=DEV)).requires_grad_()
                slope = cl(torch.randn_like(x))
                poison()
                out = depthwise3x3(x, weight, dilation)
                found = (out, *torch.autograd.grad(out, (x, weight), slope, retain_graph=True))
                same = all(
                    torch.equal(a, b)
                    for a, b in zip(found[1:], torch.autograd.grad(out, (x, weight), slope), strict=False)
                )
                a, b = (t.detach().double().requires_grad_() for t in (x, weight))
                exact = F.conv2d(a, b, None, 1, dilation, dilation, channels)
                expected = (exact, *torch.autograd.grad(exact, (a, b), slope.double()))
                return max(rel(*pair) for pair in zip(found, expected, strict=False)), f"same bits {same}"


def bn():
    from wsss_cli.kernels.batch_norm import FusedBatchNorm2d

    shapes = (
        ((2, 5, 3, 4),)
        if SMALL
        else (
            (16, 64, 256, 256),
            (4, 256, 128, 127),
            (4, 2048, 64, 64),
            (3, 560, 33, 31),
            (16, 512, 1, 1),
            (16, 48, 128, 128),
        )
    )
    for shape in shapes:
        for relu, residual in ((False, False), (True, False), (True, True)):
            for dtype, limit in ((torch.float32, 2e-4), (torch.bfloat16, 1.5e-2)):

                @check(f"batch norm {shape} relu {relu} residual {residual} {dtype}", limit)
                def _(shape=shape, relu=relu, residual=residual, dtype=dtype):
                    norm = nn.BatchNorm2d(shape[1]).to(DEV)
                    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
                    exact = copy.deepcopy(norm).double()
                    norm.__class__ = FusedBatchNorm2d
                    norm.relu = relu
                    x = cl(2 * torch.randn(shape, device=DEV) + 3).to(dtype).requires_grad_()
                    other = cl(torch.randn(shape, device=DEV)).to(dtype).requires_grad_() if residual else None
                    slope = cl(torch.randn(shape, device=DEV)).to(dtype)
                    poison()
                    out = norm(x, other)
                    leaves = [x, norm.weight, norm.bias] + ([other] if residual else [])
                    grads = torch.autograd.grad(out, leaves, slope, retain_graph=True)
                    same = all(
                        torch.equal(a, b) for a, b in zip(grads, torch.autograd.grad(out, leaves, slope), strict=False)
                    )
                    a = x.detach().double().requires_grad_()
                    o = other.detach().double().requires_grad_() if residual else None
                    made = exact(a)
                    made = made + o if residual else made
                    # the ReLU's mask of the kernel: where the two differ is rounding near 0, not a fault
                    made = made * (out.detach() > 0) if relu else made
                    wanted = torch.autograd.grad(
                        made, [a, exact.weight, exact.bias] + ([o] if residual else []), slope.double()
                    )
                    errors = [
                        rel(p, q)
                        for p, q in zip(
                            (out, *grads, norm.running_mean, norm.running_var),
                            (made, *wanted, exact.running_mean, exact.running_var),
                            strict=False,
                        )
                    ]
                    return max(
                        errors
                    ), f"same bits {same}, worst of out,dx,dw,db,(dres),mean,var: {[f'{e:.1e}' for e in errors]}"


def fused():
    from wsss_cli.losses.cross_entropy import cross_entropy
    from wsss_cli.models.fused import fuse

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model = cl_model(deeplab(dropout=0.0))
    size, batch = (16, 2) if SMALL else (512, 4)
    x = cl(torch.randn(batch, 3, size, size, device=DEV))
    target = (
        torch.randint(0, 21, (batch, size // 16, size // 16), device=DEV)
        .repeat_interleave(16, 1)
        .repeat_interleave(16, 2)
    )
    mine = copy.deepcopy(model)
    replaced = fuse(mine)

    def step(network, kernels, bf16):
        network.train().zero_grad()
        with torch.autocast(DEV.type, torch.bfloat16, enabled=bf16):
            logits, aux = network(x, aux=True)
            loss = cross_entropy(logits, target, kernels=kernels) + 0.4 * cross_entropy(aux, target, kernels=kernels)
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten().double() for p in network.parameters()])

    loss, exact = step(copy.deepcopy(model), "plain", False)

    @check("whole R50-D8 step in float32, fused beside plain: all gradients", 1e-2)
    def _():
        other, found = step(mine, "fused", False)
        return rel(found, exact), f"replaced {replaced}, loss {other:.6f} beside {loss:.6f}"

    @check("whole R50-D8 step in bf16: error of fused over error of plain, both beside float32", 2.0 if SMALL else 1.3)
    def _():
        plain_loss, plain = step(model, "plain", True)
        fused_loss, found = step(mine, "fused", True)
        again = True if SMALL else torch.equal(step(mine, "fused", True)[1], found)
        plain_again = torch.equal(step(model, "plain", True)[1], plain)
        return rel(found, exact) / rel(plain, exact), (
            f"errors {rel(found, exact):.3f} and {rel(plain, exact):.3f}; losses {fused_loss:.5f}, {plain_loss:.5f}, float32 {loss:.5f}; "
            f"same bits again: fused {again}, plain {plain_again}"
        )


def deeplab(dropout=0.1):
    """DeepLabV3+ on ResNet-50, output stride 8, with its auxiliary head; a small one for trying these scripts."""
    from wsss_cli.models.backbones import build_backbone
    from wsss_cli.models.heads.deeplab import DeepLabHead
    from wsss_cli.models.heads.fcn import FcnHead
    from wsss_cli.models.segmentor import Segmentor

    head = {"channels": 8, "low_channels": 4, "dilations": (1, 2)} if SMALL else {}
    backbone = build_backbone("resnet26d" if SMALL else "resnet50c", output_stride=8, weights="none")
    aux = FcnHead(backbone.channels, 21, channels=8 if SMALL else 256, level=2, convs=1, concat=False, dropout=dropout)
    return Segmentor(backbone, DeepLabHead(backbone.channels, 21, dropout=dropout, **head), aux)


def cl_model(model):
    return model.to(DEV, memory_format=torch.channels_last)


def stages():
    from wsss_cli.cam.multiscale import multiscale_cam
    from wsss_cli.metrics.on_device import DeviceConfusion
    from wsss_cli.models.backbones import build_backbone
    from wsss_cli.models.classifier import CamClassifier

    @check("confusion on the device", 0)
    def _():
        size = (2, 7, 9) if SMALL else (22, 375, 500)
        pred = torch.randint(0, 22, size, device=DEV, dtype=torch.uint8)
        truth = torch.randint(0, 21, size, device=DEV, dtype=torch.uint8)
        truth[torch.rand(size, device=DEV) < 0.05] = 255
        there = DeviceConfusion(21, DEV)
        there.add(pred, truth)
        keep = (truth != 255).cpu().numpy()
        cell = truth.cpu().numpy()[keep].astype(int) * 22 + np.minimum(pred.cpu().numpy()[keep], 21)
        return int(np.abs(np.bincount(cell, minlength=484).reshape(22, 22) - there.matrix()).sum())

    @check("CAMs of a batch beside the CPU, float32", 5e-3)
    def _():
        class Plain:
            def __init__(self, model):
                self.normalise, self.cam = model.backbone.normalise, model.cam

        torch.manual_seed(0)
        model = (
            CamClassifier(build_backbone("resnet26d" if SMALL else "resnet50c", output_stride=16, weights="none"), 21)
            .eval()
            .requires_grad_(False)
        )
        images = [picture(64, 96, n) for n in range(2)]
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        expected = multiscale_cam(Plain(model), images, (1.0, 0.5), True, torch.device("cpu"))
        found = multiscale_cam(
            Plain(copy.deepcopy(model).to(DEV, memory_format=torch.channels_last)), images, (1.0, 0.5), True, DEV
        )
        return rel(found.cpu(), expected)


if __name__ == "__main__":
    group, out = sys.argv[1], sys.argv[2]
    try:
        {
            "crf": crf,
            "walk": walk,
            "par": par,
            "ce": ce,
            "pairs": pairs,
            "depthwise": depthwise,
            "bn": bn,
            "fused": fused,
            "stages": stages,
        }[group]()
    except Exception as error:
        FOUND.append(
            {
                "check": group,
                "ok": False,
                "note": f"{type(error).__name__}: {error}",
                "trace": traceback.format_exc()[-1500:],
            }
        )
        print("FAIL", group, FOUND[-1]["note"], flush=True)
    with open(out, "w") as file:
        json.dump(FOUND, file)
