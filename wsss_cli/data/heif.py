"""Photographs in HEIF containers, which Pillow reads: HEIC with pillow-heif (the extra `heic`), AVIF by itself."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

from wsss_cli.errors import DataError

HEIC, AVIF = (".heic", ".heif"), (".avif",)
HEAD = 32  # bytes of a file that say what it is
BRANDS = {
    ".avif": (b"avif", b"avis"),
    ".heic": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}


@cache
def endings_read() -> tuple[str, ...]:
    """Endings of such files that are read with what is installed."""
    heic = HEIC if find_spec("pillow_heif") else ()
    avif = AVIF if find_spec("PIL._avif") or find_spec("pillow_avif") else ()
    return (*heic, *avif)


def how_to_read(endings: Iterable[str]) -> str:
    """What to install for endings that are not read; empty where nothing helps."""
    missing = {ending.lower() for ending in endings}.difference(endings_read())
    heic, avif = sorted(missing.intersection(HEIC)), sorted(missing.intersection(AVIF))
    return "; ".join(
        [
            *([f"{' and '.join(heic)} can be read after pip install 'wsss[heic]'"] if heic else []),
            *([".avif can be read after pip install 'pillow>=11.3'"] if avif else []),
        ]
    )


def is_heif(head: bytes, name: str) -> bool:
    """Whether a file is such a container, by its first `HEAD` bytes; from then on Pillow opens those of its kind.

    Raises:
        DataError: it is, and what reads it is not installed; `name` goes into the message.
    """
    if head[4:8] != b"ftyp":
        return False
    kind = next((kind for kind, brands in BRANDS.items() if any(brand in head[8:HEAD] for brand in brands)), "")
    if kind and kind not in endings_read():
        raise DataError(
            f"{name} is a photograph in {kind[1:].upper()}; {how_to_read([kind])}", "install that, or save it as JPEG"
        )
    if kind:
        _register()
    return bool(kind)


@cache
def _register() -> None:
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    if not find_spec("PIL._avif") and find_spec("pillow_avif"):
        import pillow_avif  # noqa: F401 (it registers itself)
