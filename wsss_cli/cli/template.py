"""`wsss prepare template`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import console
from wsss_cli.cli.following import line
from wsss_cli.cli.options import JsonOption, written_file
from wsss_cli.engine.stop import Stop
from wsss_cli.talk import counted


def template(
    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of photographs.")],
    from_folders: Annotated[
        bool, typer.Option("--from-folders", help="The folder that a photograph lies in is its tag.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="FILE", parser=written_file, help="The table to write.")] = Path(
        "labels.csv"
    ),
    json_output: JsonOption = False,
) -> None:
    """A table of your photographs to write tags into; or with the tags, where each class has a folder.

    \b
    wsss prepare template photos/
    wsss prepare template photos/ --from-folders --out labels.csv

    A line for each photograph, such as holiday/001.jpg,cat. Several tags of one are joined by |: cat|person. A table
    that is there already is never written over.
    """
    from wsss_cli.data.heif import how_to_read
    from wsss_cli.data.images import why_unread
    from wsss_cli.data.sources.template import write_template

    with Stop(console.say_at_once).listening() as stop:
        written = write_template(images, out, from_folders=from_folders, check=stop.check)
    if json_output:
        console.result_json({**asdict(written), "file": str(out)})
        return
    console.result(f"{out}: {counted(written.images, 'photograph')}")
    if written.classes:
        console.result("  " + ", ".join(f"{name} {count:,}" for name, count in sorted(written.classes.items())))
    if written.unread:
        counts = ", ".join(f"{count:,} {ending}" for ending, count in written.unread.items())
        console.say(f"passed over, as these endings are not read: {counts}")
        if how := how_to_read(written.unread):
            console.say(f"hint: {how}")
    for name in written.odd:
        console.say(f"passed over: {images / name} {why_unread(images / name)}")
    if written.untagged:
        console.say(f"{counted(written.untagged, 'photograph')} without a tag: write theirs into the column labels")
    console.say(f"next: {line('prepare', 'folder', images, out)}")
