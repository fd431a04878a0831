"""A network behind an HTTP address: a page to drop photographs on, and masks for programs.

One photograph is segmented at a time. What is too large, too frequent or no photograph is refused before it is decoded.
"""

from __future__ import annotations

import base64
import io
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.data.heif import HEAD, is_heif
from wsss_cli.data.images import REPLACE, check_pixels, decode_image
from wsss_cli.data.masks import mask_png
from wsss_cli.data.tiff import refuse_unshown, tiff_tags
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError, ResourceError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict
from wsss_cli.report.drop_page import PAGE
from wsss_cli.report.pictures import encoded, overlay
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

CLIENTS = 10_000  # addresses that are remembered
ANSWERS = "as=mask or as=overlay; JSON with both without it"
DROPPED = 8  # times the largest file: what is read of one that is larger before it is refused
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What is taken.

    Attributes:
        megabytes: of a file.
        megapixels: of a photograph.
        per_minute: photographs from one address; 0: as many as come.
        waiting: photographs that wait for the network; more are sent away, as are more than four times as many files
            that are on their way.
        silence: seconds without a byte after which a file is not waited for any longer.
    """

    megabytes: int = 20
    megapixels: int = 25
    per_minute: int = 60
    waiting: int = 8
    silence: float = 10.0


@dataclass
class Visits:
    """When addresses came in the last minute."""

    per_minute: int
    times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def wait(self, address: str, now: float) -> int:
        """Seconds until an address may come again; 0: now, which is noted."""
        if not self.per_minute:
            return 0
        times = self.times.setdefault(address, deque())
        self.times.move_to_end(address)
        while len(self.times) > CLIENTS:
            self.times.popitem(last=False)
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= self.per_minute:
            return int(60 - (now - times[0])) + 1
        times.append(now)
        return 0


def application(network: Network, name: str, limits: Limits, ctx: Context, *, ms_flip: bool) -> Starlette:
    """The web application: `GET /` is the page, `GET /health` says what runs, `POST /predict` takes bytes of a file.

    `/predict` answers with JSON (width, height, seconds; classes with name, colour and share of the pixels; mask and
    overlay as data URLs), with `?as=mask` or `?as=overlay` with that picture. What is refused comes as JSON with
    `error` and `hint`: 400 no photograph or too many pixels, 408 it stopped on its way or took longer than thirty times
    `silence`, 413 too large, 429 too often, 503 too many at once. `state.served` counts those answered with a mask.

    Args:
        name: of the network, for the page.
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    visits, one = Visits(limits.per_minute), anyio.Semaphore(1)
    waiting: set[Request] = set()
    arriving: set[Request] = set()

    def refused(status: int, error: str, hint: str, after: int = 0) -> Response:
        more = {"Retry-After": str(after)} if after else {}
        more |= {"Connection": "close"} if status == 408 else {}
        return JSONResponse({"error": error, "hint": hint}, status, HEADERS | more)

    def sent_away() -> Response:
        waits = counted(len(waiting), "photograph") + (" is" if len(waiting) == 1 else " are")
        return refused(503, f"{waits} waiting, {len(arriving)} on their way", "try again in a moment", 5)

    async def segment(request: Request) -> Response:
        after = visits.wait(request.client.host if request.client else "", time.monotonic())
        if after:
            return refused(429, f"more than {limits.per_minute} photographs a minute", f"wait {after} s", after)
        if await _is_full(waiting, limits.waiting) or len(arriving) >= 4 * limits.waiting:
            return sent_away()
        try:
            kind = kind_asked(request.query_params.multi_items(), request.headers)
            arriving.add(request)  # a slow sender holds no place before the network
            data = await _received(request, limits)
            arriving.discard(request)
            if data is None:
                return refused(413, f"the file has more than {limits.megabytes} MB", "send a smaller one")
            if await _is_full(waiting, limits.waiting):
                return sent_away()
            waiting.add(request)
            async with one:
                if await request.is_disconnected():
                    raise ClientDisconnect
                answer = await anyio.to_thread.run_sync(segmented, data)
        except TimeoutError:
            return refused(408, "the file stopped on its way", "send it again")
        except ClientDisconnect:  # nobody reads the answer
            return Response(None, 400)
        except DataError as error:
            return refused(400, error.message, error.hint or "send a JPEG or PNG")
        except ResourceError as error:
            return refused(413, error.message, error.hint)
        finally:
            arriving.discard(request)
            waiting.discard(request)
        request.app.state.served += 1
        return _response(answer, kind)

    def segmented(data: bytes) -> dict[str, Any]:
        begin = time.perf_counter()
        check_size(data, limits.megapixels)
        return answered(network, _decoded(data), ctx, ms_flip=ms_flip) | {
            "seconds": round(time.perf_counter() - begin, 3)
        }

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE, 200, HEADERS)

    async def health(request: Request) -> Response:
        return JSONResponse({"network": name, "classes": network.classes, "megabytes": limits.megabytes}, 200, HEADERS)

    web = Starlette(routes=[Route("/", page), Route("/health", health), Route("/predict", segment, methods=["POST"])])
    web.state.served = 0
    return web


async def _is_full(waiting: set[Request], most: int) -> bool:
    """Whether no place before the network is free; who has left holds none."""
    if len(waiting) >= most:
        waiting.difference_update([each for each in tuple(waiting) if await each.is_disconnected()])
    return len(waiting) >= most


def _response(answer: dict[str, Any], kind: str) -> Response:
    from starlette.responses import JSONResponse, Response

    if kind in ("mask", "overlay"):
        return Response(answer[kind], 200, HEADERS, "image/png" if kind == "mask" else "image/jpeg")
    mask, drawn = (base64.b64encode(answer[key]).decode() for key in ("mask", "overlay"))
    pictures = {"mask": f"data:image/png;base64,{mask}", "overlay": f"data:image/jpeg;base64,{drawn}"}
    return JSONResponse(answer | pictures, 200, HEADERS)


async def _received(request: Request, limits: Limits) -> bytes | None:
    """The file, or None where there is more of it than is taken; TimeoutError where it stops on its way.

    What is too much is read and dropped, up to `DROPPED` times the limit: who is cut off may not read why.
    """
    import anyio

    most, size, data, parts = limits.megabytes * 2**20, 0, bytearray(), request.stream()
    if int(request.headers.get("content-length") or 0) > most and "expect" in request.headers:
        return None  # the client waits for a word before it sends
    with anyio.fail_after(30 * limits.silence):
        while size <= DROPPED * most:
            with anyio.fail_after(limits.silence):
                part = await anext(parts, None)
            if part is None:
                return bytes(data) if size <= most else None
            size += len(part)
            if size <= most:
                data += part
            else:
                data.clear()
    return None


def _decoded(data: bytes) -> np.ndarray:
    """As `decode_image`, with words for somebody who has sent a file and knows of no list."""
    try:
        return decode_image(data, "that was sent")
    except DataError as error:
        if error.hint != REPLACE:
            raise
        raise DataError(
            "the file cannot be decoded: it is damaged, or was cut off on the way",
            "send it again, or open it in another program, save it as JPEG or PNG, and send that",
        ) from error


def kind_asked(fields: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> str:
    """What is to be answered with: json, mask or overlay.

    Args:
        fields: of the address, behind its question mark.
        headers: by names in small letters.
    Raises:
        DataError: no such answer or field, a field twice, or the photograph is part of a form (multipart) or packed.
    """
    kind = next((value for name, value in fields if name == "as"), "json")
    if kind not in ("json", "mask", "overlay"):
        raise DataError(f"there is no as={kind[:40]}", ANSWERS)
    if other := next((name for name, _ in fields if name != "as"), ""):
        raise DataError(f"there is no field {other[:40]!r} in the address", f"{ANSWERS}; all else wsss serve is told")
    if len(fields) > 1:
        raise DataError("the address has as= more than once", ANSWERS)
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise DataError("a form was sent, not a photograph", "send the file alone: curl --data-binary @photo.jpg")
    if (packed := headers.get("content-encoding", "identity").lower()) not in ("", "identity"):
        raise DataError(f"Content-Encoding {packed[:40]} is not read", "send the bytes of the file as they are")
    return kind


def check_size(data: bytes, megapixels: int) -> None:
    """Refuse a photograph of too many pixels before it is decoded.

    Raises:
        DataError: it has more, is no photograph, or is one that needs what is not installed.
    """
    is_heif(data[:HEAD], "the file")
    refuse_unshown(tiff_tags(io.BytesIO(data)), "the file")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception:
        raise DataError("the file is no photograph that can be read", "send a JPEG, PNG, WebP, BMP or TIFF") from None
    if width * height > megapixels * 1_000_000:
        raise DataError(f"a photograph of {width}x{height} has more than {megapixels} megapixels", "send a smaller one")
    check_pixels(height, width, "the file")


def answered(network: Network, image: np.ndarray, ctx: Context, *, ms_flip: bool) -> dict[str, Any]:
    """Mask and overlay of a photograph (bytes of PNG and JPEG), its size, and the share of each class in it."""
    config: EvalConfig = network.preset.eval
    precision = network.preset.train.precision
    masks = predict(network.model, [image], config, ctx, precision, single=not ms_flip, ms_flip=ms_flip)
    mask = masks["ms_flip" if ms_flip else "single"][0]
    counts = np.bincount(mask.ravel(), minlength=len(network.classes))
    shares = [
        {"name": name, "color": list(network.colors[number]), "share": counts[number] / mask.size}
        for number, name in enumerate(network.classes)
        if counts[number]
    ]
    return {
        "width": mask.shape[1], "height": mask.shape[0], "classes": sorted(shares, key=lambda each: -each["share"]),
        "mask": mask_png(mask, network.colors),
        "overlay": encoded(overlay(image, mask, network.colors), jpeg=True),
    }  # fmt: skip
