"""What data sets of 1,000 to a million images cost before and around the network: see docs/benchmarks/ranks.md.

python benchmarks/growth.py WORK                 # 1,000, 10,000 and 100,000 images
python benchmarks/growth.py WORK 1000000
python benchmarks/growth.py WORK --show          # the table of what was measured so far
python benchmarks/growth.py WORK --of photographs,prepare,results,maps 1000    # these alone

Photographs are hard links to copies of one JPEG of 48 x 32 pixels, CAMs hard links to copies of one of 12 x 8. Each
measurement is a process of its own, and its row goes to WORK/growth.json at once: run again to go on. `cam`, `pseudo`
and `infer` work on up to 10,000 images with a network of two layers; of more images they do all that comes before the
first one, which is the code of the stages up to their sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINKS = 50_000  # to one file: ext4 has room for 65,000
COUNTS = (1_000, 10_000, 100_000)
WHOLE = 10_000  # images up to which stages do all of their work
CLASSES = ("background", "cat", "dog", "cow")
WALLS = 3_600  # seconds that one measurement may take


def main(arguments: list[str]) -> None:
    work = Path(arguments[0]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    if arguments[1:2] == ["--one"]:
        print(json.dumps(MEASURES[arguments[2]](work, int(arguments[3]))))
        return
    file = work / "growth.json"
    rows: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"machine": machine()}
    if arguments[1:2] != ["--show"]:
        chosen = arguments[2].split(",") if arguments[1:2] == ["--of"] else list(MEASURES)
        words = arguments[3:] if arguments[1:2] == ["--of"] else arguments[1:]
        for count in [int(word) for word in words] or COUNTS:
            for name in chosen:
                key = f"{name} {count}"
                if key not in rows:
                    print(key, flush=True)
                    rows[key] = measured(work, name, count)
                    file.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def measured(work: Path, name: str, count: int) -> dict[str, Any]:
    """The row of a measurement, which runs in a process of its own."""
    begin = time.perf_counter()
    command = [sys.executable, __file__, str(work), "--one", name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WALLS, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:], "wall": time.perf_counter() - begin}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), ":")
    return f"{model.partition(':')[2].strip()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def table(rows: dict[str, Any]) -> str:
    counts = sorted({int(key.split()[-1]) for key in rows if key != "machine"})
    lines = [
        rows["machine"],
        "",
        f"| step | {' | '.join(f'{count:,}' for count in counts)} |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for name in MEASURES:
        lines.append(f"| {name} | {' | '.join(cell(rows.get(f'{name} {count}')) for count in counts)} |")
    return "\n".join(lines)


def cell(row: dict[str, Any] | None) -> str:
    if row is None or "error" in row:
        return "-" if row is None else "failed"
    more = f", {row['images_s']:,.0f} images/s" if "images_s" in row else ""
    more += f", workers {row['worker_mib']:,.0f} MiB" if "worker_mib" in row else ""
    return f"{row['seconds']:.2f} s ({row.get('cpu', 0):.2f} s), {row['mib']:.0f} MiB{more}"


# -- one measurement each ----------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], images: int = 0) -> dict[str, Any]:
    """Seconds of some work, those of them on a core, and by how much it raises the process's largest memory, MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, start = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "seconds": round(seconds, 3),
        "cpu": round(cpu, 3),
        "mib": round((after - before) / 1024, 1),
        "peak_mib": round(after / 1024),
    }
    return {**row, "images_s": round(images / seconds, 1)} if images else row


def photographs(work: Path, count: int) -> dict[str, Any]:
    """Hard links in folders of a thousand, and in one folder for `infer`; labels.csv. No figure of the project."""

    def make() -> None:
        home = work / f"{count}"
        with whole_text(home / "labels.csv") as text:
            text.write("image,labels\n")
            for number in range(count):
                folder = home / "photos" / f"{number // 1000:04d}"
                if number % 1000 == 0:
                    folder.mkdir(parents=True, exist_ok=True)
                link(photograph(home, "photo", number), folder / f"{number:07d}.jpg")
                text.write(f"{number // 1000:04d}/{number:07d}.jpg,{CLASSES[1 + number % 3]}\n")

    return timed(make)


def prepare(work: Path, count: int) -> dict[str, Any]:
    """`wsss prepare folder`: every photograph is decoded, here by one process."""
    from wsss_cli.data.sources.folder import FolderSettings, prepare_folder
    from wsss_cli.data.sources.listed import FolderSource

    source = FolderSource(work / f"{count}" / "photos", work / f"{count}" / "labels.csv")

    def run() -> None:
        prepare_folder(source, work / f"{count}" / "data", FolderSettings("growth"), check=nothing, workers=1)

    return timed(run, count)


def open_data(work: Path, count: int) -> dict[str, Any]:
    """What every command does first: all rows of all lists are checked and hashed."""
    import numpy  # noqa: F401 - not of the list

    from wsss_cli.data.dataset import open_dataset

    return timed(lambda: open_dataset(work / f"{count}" / "data").split("train"))


def plan(work: Path, count: int) -> dict[str, Any]:
    """The batches of `cam` for all images, by the sizes in the list."""
    from wsss_cli.stages.cam import cam_batches
    from wsss_cli.stages.paths import cam_files

    exp, ctx = experiment(work, count)
    samples = exp.dataset.split("train")

    def run() -> None:
        pending = cam_files(work / f"{count}" / "no run").without_file(samples)
        batches = cam_batches(pending, exp.preset.cam, [], ctx)
        assert (batches.items, len(batches[0].items) > 0) == (count, True)

    return timed(run)


def listed(work: Path, count: int) -> dict[str, Any]:
    """A list of photographs that are not there, of the sizes of VOC. No figure of the project."""

    def make() -> None:
        home = work / f"{count}" / "listed"
        (home / "splits").mkdir(parents=True, exist_ok=True)
        (home / "dataset.json").write_text(json.dumps({"form": 1, "classes": list(CLASSES)}))
        sizes = [(500, 300 + 5 * (number * number % 41)) for number in range(41)]
        with (home / "splits" / "train.csv").open("w", encoding="utf-8") as text:
            text.write("id,image,mask,labels,width,height\n")
            for number in range(count):
                name, (width, height) = f"{number // 1000:05d}/{number:08d}", sizes[number % 41]
                text.write(f"{name},/data/photos/{name}.jpg,,{CLASSES[1 + number % 3]},{width},{height}\n")

    return timed(make)


def begin(work: Path, count: int) -> dict[str, Any]:
    """Memory of this process alone, from opening that list to a sweep's first batch: none of files."""
    from wsss_cli.stages.cam import cam_batches
    from wsss_cli.stages.paths import cam_files

    import_all(work, count)
    before, peak, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    threading.Thread(target=watch, daemon=True).start()
    steps: dict[str, int] = {}

    def step(name: str) -> None:
        steps[name], peak[0] = (peak[0] - before) >> 20, 0

    def run() -> None:
        exp, ctx = experiment(work, count, "listed")
        samples = exp.dataset.split("train")
        step("open")
        pending = cam_files(work / f"{count}" / "no run").without_file(samples)
        batches = cam_batches(pending, exp.preset.cam, [], ctx)
        step("plan")
        check(sum(len(batch.items) for batch in batches[:1000]) > 0)
        step("sweep")

    row = timed(run)
    done.set()
    return {**row, "before_mib": before >> 20, "held_mib": (anonymous() - before) >> 20, **steps}


def anonymous() -> int:
    """Bytes of this process that are in memory and in no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def import_all(work: Path, count: int) -> None:
    """What every stage loads, so that it does not count."""
    from wsss_cli.stages import cam

    check(cam is not None)
    small = 1000
    listed(work, small)
    exp, _ = experiment(work, small, "listed")
    check(count > 0 and len(exp.dataset.split("train")) == small)


def fill(work: Path, count: int) -> dict[str, Any]:
    """A cam run whose CAMs are there: hard links. No figure of the project."""
    import numpy as np

    from wsss_cli.cam.store import write_cam
    from wsss_cli.engine.rundir import open_run
    from wsss_cli.stages.opening import spread_of, step_inputs
    from wsss_cli.stages.paths import cam_files

    exp, _ = experiment(work, count)
    path = work / f"{count}" / "runs" / "cam"

    def make() -> None:
        step = cam_step(path)
        with open_run(path, "cam", exp.preset, "growth", step_inputs(step, exp), spread_of(exp)):
            files = cam_files(path)
            for number, sample in enumerate(exp.dataset.split("train")):
                source = work / f"{count}" / "sources" / f"{number // LINKS}-{sample.labels[0]}.npz"
                if not source.is_file():
                    write_cam(source, np.zeros((1, 8, 12), np.float32), sample.labels, (32, 48))
                file = files.of(sample.id)
                try:
                    link(source, file)
                except FileNotFoundError:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    link(source, file)

    return timed(make)


def scan(work: Path, count: int) -> dict[str, Any]:
    """Which CAMs are there: what `cam` and `pseudo` ask first."""
    from wsss_cli.stages.paths import cam_files

    exp, _ = experiment(work, count)
    samples, files = exp.dataset.split("train"), cam_files(work / f"{count}" / "runs" / "cam")
    return timed(lambda: check(len(files.without_file(samples)) == 0))


def finish(work: Path, count: int) -> dict[str, Any]:
    """The list of outputs, written at the end of a run."""
    from wsss_cli.engine.outputs import list_outputs

    return timed(lambda: list_outputs(work / f"{count}" / "runs" / "cam"))


def whole(work: Path, count: int) -> dict[str, Any]:
    """Whether a finished run is whole: names and sizes of all files, which every command that reads it looks at."""
    from wsss_cli.engine.outputs import damaged_outputs

    return timed(lambda: check(damaged_outputs(work / f"{count}" / "runs" / "cam") == []))


def cam(work: Path, count: int) -> dict[str, Any]:
    """`make_cams` with a network of two layers, its files included; above 10,000 images up to its sweep."""
    from wsss_cli.engine.rundir import open_run
    from wsss_cli.stages import cam as stage
    from wsss_cli.stages.opening import spread_of, step_inputs

    exp, ctx = experiment(work, count)
    model = classifier()
    path = work / f"{count}" / "runs" / "cam-made"
    if count > WHOLE:
        stage.sweep = no_sweep  # type: ignore[assignment]

    def run() -> None:
        with open_run(path, "cam", exp.preset, "made", step_inputs(cam_step(path), exp), spread_of(exp)) as opened:
            plain = stage.PlainCam(model)
            samples = exp.dataset.split("train")
            lost = stage.make_cams(model, lambda tags: plain, samples, exp.preset.cam, "fp32", opened, ctx)
            check(lost == [])

    return timed(run, count if count <= WHOLE else 0)


def pseudo(work: Path, count: int) -> dict[str, Any]:
    """Masks from CAMs by fixed thresholds without refining, in one process; above 10,000 images up to its sweep."""
    from wsss_cli.engine.rundir import open_run
    from wsss_cli.stages import pseudo as stage
    from wsss_cli.stages.opening import spread_of, step_inputs
    from wsss_cli.stages.paths import cam_files
    from wsss_cli.stages.thresholds import Thresholds

    exp, ctx = experiment(work, count)
    scores = cam_files(work / f"{count}" / "runs" / "cam")
    path = work / f"{count}" / "runs" / "pseudo"
    if count > WHOLE:
        stage.sweep_items = no_items  # type: ignore[assignment]

    def run() -> None:
        with open_run(path, "pseudo", exp.preset, "made", step_inputs(cam_step(path), exp), spread_of(exp)) as opened:
            samples, chosen = exp.dataset.split("train"), Thresholds(0.4, 0.2)
            lost, _ = stage._refine(samples, exp.dataset, exp.preset, scores, chosen, opened, ctx)
            check(lost == [])
            check(stage._without_scores(samples, scores.folder.parent, scores, None) == [])

    return timed(run, count if count <= WHOLE else 0)


def infer(work: Path, count: int) -> dict[str, Any]:
    """`wsss infer` of a folder, masks only; above 10,000 images up to its sweep and the first 4,096 headers."""
    import torch
    from torch import nn

    from wsss_cli.inference.network import Network
    from wsss_cli.stages import infer as stage
    from wsss_cli.stages.photographs import find_images

    exp, ctx = experiment(work, count)
    home = work / f"{count}" / "flat"
    home.mkdir(exist_ok=True)
    for number in range(count):
        target = home / f"{number:07d}.jpg"
        if not target.is_file():
            link(photograph(home.parent, "flat", number), target)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 4, stride=4)

        @property
        def backbone(self) -> Tiny:
            return self

        def normalise(self, x: torch.Tensor) -> torch.Tensor:
            return x.float() / 255

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    network = Network(Tiny(), exp.preset, CLASSES, ((0, 0, 0),) * 4, 1, "", "growth")  # type: ignore[arg-type]
    if count > WHOLE:
        stage.sweep = no_sweep  # type: ignore[assignment]

    def run() -> None:
        paths = find_images([str(home)], work / f"{count}" / "out", print)
        done = stage.run_infer(network, paths, work / f"{count}" / "out", ctx, ms_flip=False, beside=())
        check((len(paths), done["lost"]) == (count, []))

    return timed(run, count if count <= WHOLE else 0)


# -- what they share ---------------------------------------------------------------------------------------------------


def experiment(work: Path, count: int, name: str = "data") -> tuple[Any, Any]:
    """The experiment on the data set, and a context of one thread; the list is read."""
    import cv2
    import torch

    from wsss_cli.config.load import load_preset
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.engine.context import Context
    from wsss_cli.stages.plan import Experiment

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = work / f"{count}" / name
    settings = ["cam.scales=[1.0]", "cam.flip=false", "pseudo.steps=[]", "pseudo.workers=1"]
    preset = load_preset("toy", [f'dataset.path="{data}"', *settings])
    runs = work / f"{count}" / "runs"
    runs.mkdir(exist_ok=True)
    return Experiment(preset, open_dataset(data), runs), Context(torch.device("cpu"), runs)


def classifier() -> Any:
    """A classifier of two layers."""
    import torch
    from torch import nn

    from wsss_cli.models.backbones import Backbone
    from wsss_cli.models.classifier import CamClassifier

    class Info:
        def channels(self) -> list[int]:
            return [4, 8]

        def reduction(self) -> list[int]:
            return [4, 8]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.feature_info = Info()
            self.first, self.second = nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 8, 2, stride=2)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            first = torch.relu(self.first(x))
            return [first, torch.relu(self.second(first))]

    return CamClassifier(Backbone(Net(), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)), len(CLASSES)).eval()


def cam_step(path: Path) -> Any:
    from wsss_cli.stages.plan import Step

    return Step("cam", path, "growth")


def no_sweep(batches: Any, *arguments: Any) -> Any:
    """In place of a sweep: the first batch is put together, and that is all."""
    next(iter(batches))
    return iter(())


def no_items(items: Any, *arguments: Any) -> Any:
    """In place of a sweep: every item is made, and let go."""
    for _ in items:
        pass
    return iter(())


def results(work: Path, count: int) -> dict[str, Any]:
    """`wsss import-scores` of a JSON of COCO results: two run-length codes of each photograph, one of another class."""
    import numpy as np
    from pycocotools import mask as rle_of

    home = work / f"{count}"
    codes = []
    for number in range(7):
        plane = np.zeros((32, 48), np.uint8, order="F")
        plane[4 + number : 20, 6 : 30 + number] = 1
        codes.append(rle_of.encode(plane)["counts"].decode())
    file = home / "results.json"
    with whole_text(file) as text:
        text.write("[")
        for number in range(count):
            name = f"{number // 1000:04d}/{number:07d}.jpg"
            for place, label in enumerate((CLASSES[1 + number % 3], CLASSES[1 + (number + 1) % 3])):
                code = {"size": [32, 48], "counts": codes[(number + place) % 7]}
                entry = {"file_name": name, "label": label, "segmentation": code, "score": 0.9 - 0.3 * place}
                text.write(f"{', ' if number or place else ''}{json.dumps(entry)}")
        text.write("]")
    return imported(home, file, count)


def maps(work: Path, count: int) -> dict[str, Any]:
    """`wsss import-scores` of a folder of label maps."""
    import numpy as np

    from wsss_cli.data.masks import write_mask

    home = work / f"{count}"
    for number in range(count):
        source = home / "sources" / f"map-{number // LINKS}-{number % 3}.png"
        if not source.is_file():
            mask = np.zeros((32, 48), np.uint8)
            mask[8:24, 12:36] = (
                sorted(CLASSES[1:]).index(CLASSES[1 + number % 3]) + 1
            )  # as `prepare folder` orders them
            write_mask(source, mask, ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)))
        folder = home / "maps" / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        link(source, folder / f"{number:07d}.png")
    return imported(home, home / "maps", count)


def imported(home: Path, source: Path, count: int) -> dict[str, Any]:
    """An import, its files, tables and records included; above 10,000 images up to its sweep, every job made.

    `worker_mib` is the largest worker process.
    """
    import torch

    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.engine.context import Context
    from wsss_cli.stages import teacher as stage

    ctx = Context(torch.device("cpu"), home / "runs")
    if count > WHOLE:
        stage.sweep_items = no_items  # type: ignore[assignment]

    def run() -> None:
        words = stage.Source(source, "growth", {})
        done = stage.run_import(open_dataset(home / "data"), "train", words, source.stem, ctx)
        taken = sum(one.taken for one in done.counts.values())
        check(done.lost == [] and taken == (count if count <= WHOLE else 0) and not done.skipped)

    row = timed(run, count if count <= WHOLE else 0)
    return {**row, "worker_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)}


def whole_text(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


def photograph(home: Path, kind: str, number: int) -> Path:
    """The file that a photograph is a link to."""
    source = home / "sources" / f"{kind}-{number // LINKS}.jpg"
    if number % LINKS == 0 and not source.is_file():
        import cv2
        import numpy as np

        source.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(source), np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    return source


def link(source: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.link(source, target)


def check(fine: bool) -> None:
    if not fine:
        raise AssertionError


def nothing() -> None:
    pass


MEASURES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "photographs": photographs,
    "prepare": prepare,
    "open": open_data,
    "plan": plan,
    "listed": listed,
    "begin": begin,
    "fill": fill,
    "scan": scan,
    "finish": finish,
    "whole": whole,
    "cam": cam,
    "pseudo": pseudo,
    "infer": infer,
    "results": results,
    "maps": maps,
}

if __name__ == "__main__":
    main(sys.argv[1:])
