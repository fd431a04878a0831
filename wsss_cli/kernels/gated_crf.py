"""The gated CRF's energy and what every pixel's window sends it, in one kernel.

A program takes a tile of pixels and a block of classes, walks through the whole window, and finds the weight of each
neighbour anew for every block: three loads and an exponential, beside a load for each class. Sums have a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 128  # of a tile, in reading order


def messages_and_energy(
    probabilities: Tensor, image: Tensor, gate: Tensor, radius: int, sxy: float, srgb: float
) -> tuple[Tensor, Tensor]:
    """What `losses.gated_crf` computes: sum_j k_ij g_i g_j p_j of each pixel i, and the energy.

    Args:
        probabilities: float32 [B, K, h, w], on a CUDA device (on the CPU in Triton's interpreter).
        image: RGB in the units of `srgb`, float32 [B, 3, h, w].
        gate: bool [B, h, w].
        radius, sxy, srgb: of the window and of the weights.
    Returns:
        (messages, float32 [B, K, h, w]; energy, float32 scalar). The same input gives the same bits.
    """
    probabilities, image, gate = probabilities.contiguous(), image.contiguous(), gate.to(torch.uint8).contiguous()
    batch, classes, height, width = probabilities.shape
    block = 8 if classes <= 8 else 16  # at 21 classes 16 take two thirds of the instructions of 8, in 125 registers
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(classes, block), batch)
    messages = torch.empty_like(probabilities)
    energies = probabilities.new_empty(grid[0] * grid[1] * grid[2])
    scales = 1 / (2 * sxy**2), 1 / (2 * srgb**2)
    with torch.cuda.device_of(probabilities):
        gated_crf_messages[grid](
            probabilities, image, gate, messages, energies, classes, height, width, radius, *scales,
            BLOCK=block, PIXELS=PIXELS,
        )  # fmt: skip
    return messages, energies.sum(dtype=torch.float64).float()


@triton.jit(do_not_specialize=["classes", "height", "width", "radius"])
def gated_crf_messages(
    probabilities, image, gate, messages, energies, classes, height, width, radius, space, colour,
    BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """`energies`: one of each program."""
    item = tl.program_id(2).to(tl.int64)
    count = height * width
    image += item * 3 * count
    gate += item * count
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = place < count
    place = tl.minimum(place, count - 1)  # those past the end do the last pixel's work and store nothing
    y, x = place // width, place % width
    opened = inside & (tl.load(gate + place) != 0)
    red, green, blue = tl.load(image + place), tl.load(image + count + place), tl.load(image + 2 * count + place)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    planes = item * classes * count + (tl.minimum(k, classes - 1) * count)[:, None]
    sent = tl.zeros([BLOCK, PIXELS], tl.float32)
    mass = tl.zeros([PIXELS], tl.float32)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            pair = opened & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
            there = tl.where(pair, place + dy * width + dx, place)
            pair = pair & ((dy != 0) | (dx != 0)) & (tl.load(gate + there) != 0)
            d_red = tl.load(image + there) - red
            d_green = tl.load(image + count + there) - green
            d_blue = tl.load(image + 2 * count + there) - blue
            apart = (d_red * d_red + d_green * d_green + d_blue * d_blue) * colour + (dy * dy + dx * dx) * space
            weight = tl.where(pair, tl.exp(-apart), 0.0)
            mass += weight
            sent += weight[None, :] * tl.load(probabilities + planes + there[None, :])
    known = (k < classes)[:, None] & inside[None, :]
    centre = tl.load(probabilities + planes + place[None, :], mask=known, other=0.0)
    tl.store(messages + planes + place[None, :], sent, mask=known)
    energy = tl.where(tl.program_id(1) == 0, tl.sum(mass, 0), 0.0) - tl.sum(tl.sum(centre * sent, 0), 0)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(energies + program, energy)
