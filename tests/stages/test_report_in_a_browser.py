"""The page of a report in a browser at desktop and phone width; skipped where there is no Chromium."""

import base64
import json
import re
import shutil
import subprocess

import pytest
import torch
from toy_runs import blue, copy_without_masks

from wsss_cli.engine.context import Context
from wsss_cli.stages.report import write_report

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
LOOK = """
<script>
window.addEventListener("load", () => {
  const all = [...document.querySelectorAll("*")], images = [...document.images];
  const wide = all.filter(e => !e.closest(".wide") && e.getBoundingClientRect().right > innerWidth + 1);
  const seen = {
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    wide: wide.map(e => e.tagName + "." + e.className).slice(0, 5),
    images: images.length,
    broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    unnamed: images.filter(i => !i.alt).length + document.querySelectorAll("svg:not([aria-label])").length,
    fetched: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
    anchors: [...document.querySelectorAll("nav a")].filter(a => !document.getElementById(a.hash.slice(1))).length,
    charts: document.querySelectorAll("figure, svg").length,
    tables: document.querySelectorAll("table").length,
    small: all.filter(e => e.childNodes.length && e.innerText?.trim() && e.closest("main") && !e.closest("svg")
      && parseFloat(getComputedStyle(e).fontSize) < 11).length,
  };
  parent.postMessage([name, seen], "*");
});
</script>
"""


POLICY = "default-src &#x27;none&#x27;"
WIDTHS = (1280, 390)
PAGES = {
    "training": ("", ["train-toy-3"]),
    "two": ("", ["train-toy-3", "train-toy-4"]),
    "masks": ("", ["pseudo-toy-2"]),
    "none": ("none", ["train-toy-3"]),
}
"""Pages: whether the data set has masks, and the runs."""


@pytest.fixture(scope="module")
def seen(home, tmp_path_factory):
    """What a browser sees of each page in windows of each width; frames, as a window has a least width."""
    folder = tmp_path_factory.mktemp("pages")
    copy_without_masks(home, folder / "none")
    frames = []
    with pytest.MonkeyPatch.context() as patch:
        blue(patch)
        for name, (where, runs) in PAGES.items():
            place = folder / where if where else home
            page = folder / f"{name}.html"
            ctx = Context(torch.device("cpu"), folder)
            write_report([place / "runs" / run for run in runs], page, ctx, photographs=2)
            text = page.read_text(encoding="utf-8").replace("</body>", LOOK + "</body>")
            assert POLICY in text  # the page itself may run no script
            page.write_text(text.replace(POLICY, f"{POLICY}; script-src &#x27;unsafe-inline&#x27;"), encoding="utf-8")
            frames += [f'<iframe name="{name} {w}" src="{name}.html" width={w} height=900></iframe>' for w in WIDTHS]
    (folder / "frames.html").write_text(
        "<style>iframe { border: 0 }</style><pre id=out>[]</pre><script>const all = [];"
        "onmessage = e => { all.push(e.data); out.textContent = btoa(JSON.stringify(all)); };</script>"
        + "".join(frames)
    )
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=60000", "--dump-dom", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stdout[-2000:] + done.stderr[-2000:]
    return dict(json.loads(base64.b64decode(told.group(1))))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_needs_nothing_else(seen, name, width):
    page = seen[f"{name} {width}"]
    assert page["inner"] == width and page["scroll"] <= width and page["wide"] == []
    assert page["images"] > 5 and page["broken"] == page["unnamed"] == page["fetched"] == page["anchors"] == 0
    assert page["tables"] >= 2 and page["small"] == 0
