"""HTML, built so that no name can become markup: text is escaped unless a function here made it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

import cv2
import numpy as np

from wsss_cli.escapes import visible

VOID = frozenset({"img", "meta", "br", "line", "circle", "rect", "polyline", "path"})


class Html(str):
    """Markup: taken as it is by `node`."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text; control and bidirectional characters as visible escapes."""
    return value if isinstance(value, Html) else Html(escape(visible(str(value))))


def node(tag: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes: None leaves one out; `class_` is class, other underscores are hyphens."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>" if tag in ("img", "meta", "br") else f"<{tag}{written}/>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Markup and texts after each other; None is nothing."""
    return Html("".join(text(child) for child in children if child is not None))


def table(columns: Iterable[object], rows: Iterable[Iterable[object]], left: int = 1) -> Html:
    """A table that scrolls sideways where it is too wide; the first `left` columns are aligned left."""
    heads = list(columns)
    head = node("tr", *(node("th", cell, scope="col", class_=_side(i, left)) for i, cell in enumerate(heads)))
    body = [node("tr", *(_cell(cell, i, left) for i, cell in enumerate(row))) for row in rows]
    return node(
        "div",
        node("table", node("thead", head) if any(heads) else None, node("tbody", *body)),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label="table",
    )


def _cell(cell: object, place: int, left: int) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    return node("td", cell, class_=_side(place, left))


def _side(place: int, left: int) -> str | None:
    return None if place < left else "right"


def behind(figure: Html, name: str, columns: Iterable[object], rows: Iterable[Iterable[object]]) -> Html:
    """A picture with the table of its figures folded below it."""
    return node("figure", figure, node("details", node("summary", f"table: {name}"), table(columns, rows)))


def picture(rgb: np.ndarray, alt: str, width: int = 320, quality: int = 82) -> Html:
    """An image within the page.

    Args:
        rgb: uint8 [H, W, 3]; wider ones are made `width` wide.
        alt: what it shows, in words.
    """
    if rgb.shape[1] > width:
        height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    source = Html(f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}")
    return node("img", src=source, alt=alt, width=rgb.shape[1], height=rgb.shape[0], loading="lazy")


def page(title: str, body: Iterable[object]) -> str:
    """A whole document that needs nothing but itself; its policy lets it load nothing from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = join(
        (
            node("meta", charset="utf-8"),
            node("meta", name="viewport", content="width=device-width, initial-scale=1"),
            node("meta", http_equiv="Content-Security-Policy", content=policy),
            node("title", title),
            node("style", Html(STYLE)),
        )
    )
    return f"<!doctype html>\n{node('html', node('head', head), node('body', node('main', *body)), lang='en')}\n"


STYLE = """
:root { color-scheme: light; --ink: #1d2129; --soft: #5c6470; --line: #d9dde3; --pale: #f4f6f8; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 20px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; max-width: 75ch; } .soft, figcaption, summary { color: var(--soft); font-size: .9rem; }
code, pre { font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
pre { background: var(--pale); padding: 10px 12px; border-radius: 6px; white-space: pre-wrap; margin: 6px 0; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0; font-size: .92rem; } a { color: var(--blue); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th.right, td.right { text-align: right; white-space: nowrap; } th { color: var(--soft); font-weight: 600; }
.wide { overflow-x: auto; max-width: 100%; } .wide:focus-visible { outline: 2px solid var(--blue); }
figure { margin: 10px 0 18px; } svg { width: 100%; max-width: 680px; height: auto; display: block; }
svg text { font: 15px system-ui, sans-serif; fill: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 14px 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; min-width: 150px; flex: 0 1 auto; }
.card b { display: block; font-size: 1.5rem; line-height: 1.2; } .card span { color: var(--soft); font-size: .85rem; }
.bars { display: grid; grid-template-columns: minmax(70px, max-content) 1fr max-content; gap: 3px 10px; }
.bars { font-size: .9rem; max-width: 680px; }
.bars .name { overflow-wrap: anywhere; max-width: 200px; } .bars .value { text-align: right; }
.track { background: var(--pale); border-radius: 3px; align-self: center; }
.fill { height: 13px; border-radius: 3px; } .fill + .fill { margin-top: 2px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .88rem; margin: 6px 0; }
.key i { display: inline-block; width: 13px; height: 13px; border-radius: 3px; margin-right: 6px; }
.chain { display: flex; flex-wrap: wrap; gap: 8px; align-items: stretch; margin: 10px 0; }
.link { border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; flex: 1 1 190px; font-size: .88rem; }
.link b { display: block; font-size: 1rem; } .link.gone { border-style: dashed; }
.example { margin: 8px 0 18px; } 
.shots { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.shots div { font-size: .82rem; color: var(--soft); } 
.shots img { width: 100%; outline: 1px solid #d9dde3; height: auto; border-radius: 4px; display: block; }
.warn { border-left: 4px solid #d55e00; padding: 4px 12px; background: #fdf3ec; }
details { margin: 4px 0; } summary { cursor: pointer; }
@media (max-width: 600px) { main { padding: 16px 14px 48px; } .shots { grid-template-columns: repeat(2, 1fr); }
  svg text { font-size: 24px; } th, td { padding: 4px 6px; } h1 { font-size: 1.3rem; } .card { flex: 1 1 40%; } }
@media print { nav { display: none; } .example, figure { break-inside: avoid; } }
"""
