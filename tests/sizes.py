"""Generated images of several sizes, so that batches are several, and ranks each have some."""

import csv
from itertools import cycle

from PIL import Image

from wsss_cli.data.sources.toy import prepare_toy


def toy_of_sizes(toy, widths, **how):
    """`prepare_toy` with images that are `widths` wide, one after the other and again from the first.

    Args:
        how: for `prepare_toy`, `size` being the height.
    """
    prepare_toy(toy, **how)
    new = {}
    for image, width in zip(sorted((toy / "JPEGImages").iterdir()), cycle(widths), strict=False):
        new[image.stem] = width
        for file in (image, toy / "SegmentationClass" / f"{image.stem}.png"):
            with Image.open(file) as picture:  # masks have a palette
                resized = picture.resize((width, picture.height), Image.Resampling.NEAREST)
            resized.save(file)
    for split in (toy / "splits").iterdir():
        with split.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with split.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "width": new[row["id"]]} for row in rows)
