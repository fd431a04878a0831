"""What a file is, by its first bytes: for the words of whoever cannot read it."""

from __future__ import annotations

LOOKED_AT = 512  # bytes
ZIP = "a ZIP archive, or a document that is one"
STARTS = {
    b"\xff\xd8": "a JPEG of which too little is there",
    b"GIF8": "a GIF of which too little is there",
    b"RIFF": "no WebP, or too little of one",
    b"II*\0": "a TIFF that is damaged, or of a kind that is not read",
    b"MM\0*": "a TIFF that is damaged, or of a kind that is not read",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"%PDF": "a PDF",
    b"PK\x03\x04": ZIP,
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x93NUMPY": "an array of NumPy",
    b"\x89HDF": "HDF5",
    b"MATLAB": "a file of MATLAB",
    b"version https://git-lfs": "a pointer of Git LFS, in place of the file that git lfs pull fetches",
}
MARKUP = {b"<!doctype html": "a web page", b"<html": "a web page", b"<svg": "SVG", b"<?xml": "XML or SVG", b"{": "JSON"}
UNTOLD = "of a format that is not known"
TEXT = ("empty", "text", UNTOLD)  # what a table may be: text in other letters than ASCII is of no known format


def kind_of_file(head: bytes) -> str:
    """What a file is, in words, by its first bytes; `UNTOLD` where these do not tell."""
    if not head:
        return "empty"
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head[128:132] == b"DICM":
        return "DICOM"
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in MARKUP.items():
        if words.startswith(start):
            return kind
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return "text" if is_text else UNTOLD
