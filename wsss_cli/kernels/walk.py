"""A random walk on a GPU: a launch for each step, no copy of the neighbours.

A step is x_j <- x_j + sum_i a_ij (x_i - x_j) / d_j with d_j = sum_k a_kj, which is x <- x T of `pseudo.walk` with the
diagonal taken out. So rounding is relative to the differences of neighbours: a constant map stays as it is, to the bit.

Maps lie in memory pixel by pixel, all classes of a pixel together, without a border: the neighbour of a pixel at the
end of a row is in the next row, but its affinity is 0, and zeros lie before the first pixel and after the last one. So
no load needs a mask. A program makes 4 or 8 classes of a tile of 4 x 16 pixels; a_ij = a_ji, so it reads the plane of
an offset twice, at its pixel and at the neighbour the other way, and only one half of the taps is in memory.

Bytes, by arithmetic and not by measurement, for 21 classes (24 with padding) on 125 x 94 pixels, radius 5 (34 planes):
a pixel has 136 bytes of affinities and 96 of scores, read and written. A step has to move 136 + 2 * 96 + 4 bytes a
pixel, 3.9 MB: 1.3 us at 3 TB/s, 0.33 ms for 256 steps. All of it is 4.9 MB, which stays in the L2 cache. What tiles
read again (scores of 12 x 24 pixels for 4 x 16, affinities twice, for each 8 classes, 3 memory sectors for 2) makes
20 MB of it: 6.8 us at 3 TB/s, 1.7 ms for 256 steps. 256 launches add their latencies, which a CUDA graph keeps small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 4, 16  # of a tile: 64 bytes of a plane in a row, and not too much of a rim around it
UNROLL = 8  # offsets whose loads are in flight together; 64 registers
DEGREES_BLOCK = 256
GRAPH_STEPS = 16  # even: a graph ends in the buffer it starts from


def random_walk(maps: Tensor, affinities: Tensor, offsets: Sequence[tuple[int, int]], iterations: int) -> Tensor:
    """Steps of a random walk; see `pseudo.walk.random_walk`, which has the same arguments and result up to rounding.

    The same input gives the same bits.

    Args:
        maps: finite, float32 [C, H, W], on a CUDA device (on the CPU in Triton's interpreter).
        affinities: a_ij >= 0, float32 [len(offsets), H, W]; 0 where a pair ends off the grid.
        offsets: (dy, dx) of each pair.
        iterations: steps.
    Returns:
        float32 [C, H, W].
    """
    classes, height, width = maps.shape
    count = height * width
    block = 4 if classes <= 4 else 8  # a thread has 4 classes of a pixel: loads of 16 bytes
    blocks = max(triton.cdiv(classes, block), 1)
    away = [dy * width + dx for dy, dx in offsets]
    margin = max(map(abs, away))
    size = margin + count + max(ROWS * width + COLUMNS, DEGREES_BLOCK) + margin  # tiles reach past the last pixel
    with torch.cuda.device_of(maps):
        distances = torch.tensor(away, dtype=torch.int32).to(maps.device)
        planes = affinities.new_zeros(len(offsets), size)
        planes[:, margin : margin + count] = affinities.reshape(-1, count)
        degrees = planes.new_ones(size)
        walk_degrees[(triton.cdiv(count, DEGREES_BLOCK),)](
            planes, distances, degrees, len(offsets), count, margin, size, BLOCK=DEGREES_BLOCK
        )
        now = maps.new_zeros(size, blocks * block)
        now[margin : margin + count, :classes] = maps.reshape(classes, count).t()
        buffers = [now, torch.zeros_like(now)]
        grid = (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS), blocks)

        def steps(number: int) -> None:
            for _ in range(number):
                walk_step[grid](
                    *buffers, planes, degrees, distances, len(offsets), height, width, margin, size,
                    CLASSES=blocks * block, BLOCK=block, ROWS=ROWS, COLUMNS=COLUMNS, UNROLL=UNROLL,
                    num_warps=ROWS * COLUMNS * block // 128, num_stages=1,
                )  # fmt: skip
                buffers.reverse()

        (_replayed if maps.is_cuda else _launched)(steps, iterations)
        return buffers[0][margin : margin + count, :classes].t().contiguous().view(maps.shape)


def _launched(steps: Callable[[int], None], iterations: int) -> None:
    steps(iterations)


def _replayed(steps: Callable[[int], None], iterations: int) -> None:
    """`steps(iterations)`, most of them as a CUDA graph of `GRAPH_STEPS` that is replayed.

    A launch from Python takes longer than a step. The graph is made for one walk: images have many sizes and numbers of
    classes, making it costs no more than `GRAPH_STEPS` launches, and so no buffers outlive the walk.
    """
    replays = iterations // GRAPH_STEPS - 1
    if replays < 2:
        steps(iterations)
        return
    steps(iterations - replays * GRAPH_STEPS)  # compiles and loads the kernel, which a capture must not do
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream()):  # no work is done there: a capture needs a stream of its own
        graph.capture_begin(capture_error_mode="thread_local")  # other threads may allocate meanwhile
        try:
            steps(GRAPH_STEPS)
        finally:
            graph.capture_end()
    for _ in range(replays):
        graph.replay()
    torch.cuda.current_stream().synchronize()  # the graph must be there until it has run


@triton.jit(do_not_specialize=["pairs", "count", "margin", "size"])
def walk_degrees(affinities, distances, degrees, pairs, count, margin, size, BLOCK: tl.constexpr):
    """d_j = 1 + sum_i a_ij of each pixel; `affinities` [pairs, size], `degrees` [size] from `margin` on."""
    pixels = margin + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    degree = tl.full([BLOCK], 1.0, tl.float32)
    plane = affinities
    for pair in range(pairs):
        degree += tl.load(plane + pixels) + tl.load(plane - tl.load(distances + pair) + pixels)
        plane += size
    tl.store(degrees + pixels, degree, mask=pixels < margin + count)


@triton.jit(do_not_specialize=["pairs", "height", "width", "margin", "size"])
def walk_step(
    now, new, affinities, degrees, distances, pairs, height, width, margin, size,
    CLASSES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """One step from `now` to `new`, both [size, CLASSES]; `BLOCK` classes of `ROWS` x `COLUMNS` pixels a program.

    Pixels past the end of a row or of the grid are loaded, which is within the buffers, and not stored.
    """
    tile = tl.arange(0, ROWS * COLUMNS)
    y = tl.program_id(1) * ROWS + tile // COLUMNS
    x = tl.program_id(0) * COLUMNS + tile % COLUMNS
    pixels = margin + y * width + x
    cells = pixels[:, None] * CLASSES + tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    centre = tl.load(now + cells)
    flow = tl.zeros_like(centre)
    plane = affinities
    for pair in tl.range(0, pairs, loop_unroll_factor=UNROLL):
        distance = tl.load(distances + pair)
        forth = tl.load(plane + pixels)
        back = tl.load(plane - distance + pixels)
        there = tl.load(now + distance * CLASSES + cells)
        behind = tl.load(now - distance * CLASSES + cells)
        flow += forth[:, None] * (there - centre) + back[:, None] * (behind - centre)
        plane += size
    inside = (y < height) & (x < width)
    degree = tl.load(degrees + pixels)
    tl.store(new + cells, centre + flow / degree[:, None], mask=inside[:, None])
