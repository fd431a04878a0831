"""Photographs in object storage or on a server: URLs in a list, read through fsspec (the extra `remote`).

A `Path` holds such a URL with one '/' behind the scheme, as pathlib writes it, and is relative; those of files in lists
are absolute.
"""

from __future__ import annotations

import re
from pathlib import Path

from wsss_cli.errors import DataError, ResourceError

URL = re.compile(r"([a-z][a-z0-9+.-]+):/(.+)", re.DOTALL)
ON_DISK = ("file", "local")  # schemes whose places begin with '/'


def url_of(path: str | Path) -> str:
    """The URL that a path stands for; empty where it is one of a file."""
    match = URL.fullmatch(str(path))
    if not match:
        return ""
    scheme, place = match[1], match[2].lstrip("/")
    return f"{scheme}://{'/' if scheme in ON_DISK else ''}{place}"


def check_url(text: str, where: str) -> None:
    """See that a URL of a list means the same as a path.

    Raises:
        DataError: it does not; `where` goes into the message.
    """
    if url_of(Path(text)) != text:
        raise DataError(
            f"{where}: the URL {text!r} cannot be taken",
            "write scheme://place/name, without '//' and '/./' in the name: s3://bucket/holiday/001.jpg",
        )


def read_url(url: str) -> bytes:
    """The bytes of what a URL names.

    Raises:
        DataError: there is no such thing.
        ResourceError: what reads such URLs is not installed, or the storage does not answer or lets nobody in.
    """
    try:
        import fsspec
    except ImportError as error:
        raise ResourceError(f"{url}: URLs are read by fsspec, which is not installed", HOW) from error
    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read()
            return data
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"cannot read image {url}: there is no such file", "check the URL in the list") from error
    except (ImportError, ValueError) as error:  # no package for this kind of storage, or no such kind
        raise ResourceError(f"cannot read {url}: {error}", _how(url, error)) from error
    except MemoryError:
        raise
    except Exception as error:  # every kind of storage has its own
        said = " ".join(str(error).split())
        raise ResourceError(
            f"cannot read {url}: {said or type(error).__name__}",
            "see that the storage answers, and lets you in; the same command goes on",
        ) from error


HOW = "pip install 'wsss[remote]'"
PACKAGES = {
    "s3": "s3fs",
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp requests"),
}
"""What fsspec needs for URLs of a scheme."""


def is_there(image: Path) -> bool:
    """Whether a photograph is there; of a URL only that something can read it is looked at.

    Raises:
        ResourceError: nothing can.
    """
    url = url_of(image)
    if not url:
        return image.is_file()
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ResourceError(f"{url}: URLs are read by fsspec, which is not installed", HOW) from error
    try:
        url_to_fs(url)
    except Exception as error:  # as in `read_url`
        raise ResourceError(f"cannot read {url}: {error}", _how(url, error)) from error
    return True


def _how(url: str, error: Exception) -> str:
    """What helps where nothing reads URLs of a scheme: a hint."""
    packages = PACKAGES.get(url.partition("://")[0])
    if packages and isinstance(error, ImportError):
        return f"{HOW} {packages}"
    return f"is the scheme right? {HOW} s3fs for s3://"
