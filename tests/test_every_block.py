"""Every block of code of README and docs/ is run as it stands there, on tiny data, or is listed here with a reason.

What stands in for the reader's own is put in one place each: `Reader` has their files, `written` their words. Presets
of generated data and of folders run with schedules of two iterations; larger ones are planned (`--dry-run`) with all
of their own settings. Runs that a page names by way of example are the newest of that name. Blocks whose fence says
`text` are formulas, layouts of folders and what a program prints.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import timm
import torch
from command import PATIENCE, environment, start, wsss
from pages import PAGES, ROOT, blocks, lines_of, words_of
from scipy.io import savemat

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset, write_dataset
from wsss_cli.data.images import read_image
from wsss_cli.engine.records import find_runs, limit_of

SMALL = {
    "classifier.iters": 2, "classifier.batch": 2, "classifier.crop": 32, "classifier.data_workers": 0,
    "cam.scales": [1.0], "train.iters": 2, "train.batch": 2, "train.crop": 32, "train.data_workers": 0,
    "train.val_interval": 0, "train.head.aspp_channels": 8, "pseudo.workers": 1, "eval.scales": [1.0],
}  # fmt: skip
ALSO = {
    "prepare toy": ["--images=8", "--val=2", "--size=32"],
    "prepare voc-aug": ["--out=made"],
    "prepare coco14": ["--out=made"],
    "train": ["--iters=2"],
    "run": ["--iters=2"],
    "infer": ["--gpus=1"],  # tests/ranks have several
    "submit": ["--dry-run"],
    "bench model": ["--crop=32", "--steps=1"],
}
"""Options of commands that are added to those of the page; of two that say the same the last counts."""
RUN = ("toy", "folder-lite0", "mine.toml", "NAME")
"""Presets that are run; all others are planned, and trials (`--limit`), of which cli/test_limit.py runs one."""
ELSEWHERE = {
    "docs/how-to/extend.md": "test_extend.py applies every block to a copy of the package",
    "docs/how-to/correct-and-train-again.md": "test_docs_commands.py, with annotators in between",
    "docs/how-to/scribbles.md": "test_docs_commands.py, with drawings of each tool",
}
SCRIPTS = "cluster/test_jobs_run.py runs the scripts of slurm.md"
LISTED = {
    r"make ": "it installs, or is the suite",
    r"\. \.venv/bin/activate|cd wsss": "of the reader's shell",
    r"\.venv/bin/pytest": "the suite",
    r"(pip|pipx|uv tool) install|pip wheel": "it installs; test_release.py builds and tries the wheel",
    r"trtexec |ovc ": "TensorRT and OpenVINO are not installed, which the page says",
    r"python benchmarks/": "it takes minutes to hours, and its figures are on the page",
    r"docker ": "no container here; test_release.py compares the recipe with the page",
    r"torchrun|srun ": "several machines or GPUs; tests/ranks and tests/cluster have two ranks",
    r"tensorboard ": "a service",
    r"wsss demo$": "minutes; cli/test_demo.py",
    r"wsss prepare .*--download": "network; sources/test_download.py",
    r"wsss --install-completion": "it writes into files of the user's shell; cli/test_shell.py",
    r"wsss weights import-mmseg": "needs a checkpoint of MMSegmentation; interchange/test_import_mmseg.py",
    r"wsss runs log .*--to wandb": "a service; stages/test_loggers.py",
}
"""What cannot be run here, by the beginning of its line, and why; where else it is tested."""
NEEDS = {
    "ray": r"--engine ray",
    "onnxscript": r"\.onnx",
    "tensorboard": r"--logger tensorboard",
    "submitit": r"wsss submit",
    "uvicorn": r"wsss serve|curl ",
}
"""Packages without which lines are left out: extras, whose own tests are left out then, too."""
GATES = {"--min-miou": 4}
NAMED = re.compile(r"(?:runs/)?\b(classifier|cam|pseudo|train)-([a-z0-9-]+?)-(?:[0-9a-f]{8}|\*)")
STAGE_OF = {"--weights": "classifier", "--cams": "cam", "--masks": "pseudo"}


def write_backbone(name, file):
    """A weight file of a ResNet that holds one number for each tensor."""
    with torch.device("meta"):
        tensors = timm.create_model(name).state_dict()
    torch.save({key: torch.zeros((), dtype=one.dtype).expand(one.shape) for key, one in tensors.items()}, file)


class Reader:
    """The folder of somebody who reads: photographs with tags, data sets, trainings, files of other tools."""

    def __init__(self, folder):
        self.folder, self.shown = folder, {}
        self.run("prepare", "toy", *ALSO["prepare toy"])
        toy = open_dataset(folder / "data/toy")
        whole = {name: list(toy.split(name)) for name in ("train", "val")}
        aug = {"train_aug": whole["train"], "val": whole["val"]}
        for name in ("voc-aug", "coco14", "voc-animals", "voc-animals-4", "voc-animals-450", "voc-animals-452"):
            about = {"name": name, "classes": toy.classes, "colors": toy.colors, "source": name}
            splits = aug if name.startswith("voc") else whole
            write_dataset(folder / "data" / name, **about, splits=splits, protocol=[], findings=[])
        self.photographs([sample.image for sample in whole["train"]])
        self.other_tools()
        self.fresh()
        self.run(*written(self, ["run", "--preset", "toy"]))
        self.run(*written(self, ["train", "--preset", "toy", "--set=train.supervision=full"]))
        self.run("weights", "publish", self.newest("train", "toy"), "--out=zoo/r50")
        for name in ("resnet50c.pth", "resnet101c.pth"):
            write_backbone(name.removesuffix(".pth"), folder / "zoo" / name)
        shutil.copytree(folder / "zoo", folder / "kept-zoo")

    def photographs(self, images):
        places = ("photos/holiday/001", "photos/holiday/002", "photos/003", "photos/004", "photos/2024-05", "large/001")
        for name, image in zip(places, images, strict=False):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(self.folder / f"{name}.jpg"), cv2.imread(str(image)))
        shutil.copy(self.folder / "photos/003.jpg", self.folder / "photo.jpg")
        (self.folder / "photographs").symlink_to("photos")
        clip = cv2.VideoWriter(str(self.folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (32, 32))
        for grey in range(0, 250, 40):
            clip.write(np.full((32, 32, 3), grey, np.uint8))
        clip.release()

    def other_tools(self):
        """Masks of two photographs, results of a teacher, weight files, a devkit of VOC, SBD, and a COCO."""
        for name in ("masks", "corrected", "scribbles"):
            (self.folder / name / "holiday").mkdir(parents=True)
            for classes, photograph in (((0, 0), "003"), ((1, 3), "holiday/001")):  # cat and person, as it is tagged
                mask = np.full((32, 32), 255, np.uint8)
                mask[8:16], mask[16:] = classes
                cv2.imwrite(str(self.folder / name / f"{photograph}.png"), mask)
        square = [[4, 4, 20, 4, 20, 20, 4, 20]]
        results = [{"file_name": "holiday/002.jpg", "label": "cat", "segmentation": square, "score": 0.9}]
        (self.folder / "sam3.json").write_text(json.dumps(results))
        for name in ("resnet50_v1c-2cccc1ad.pth", "resnet50_v1c.pth", "resnet50.pth"):
            write_backbone("resnet50" if name == "resnet50.pth" else "resnet50c", self.folder / name)
        (self.folder / "benchmark_RELEASE/dataset/cls").mkdir(parents=True)
        for name, photograph in (("train", "t1"), ("val", "t2")):
            (self.folder / f"benchmark_RELEASE/dataset/{name}.txt").write_text(f"{photograph}\n")
            mask = {"GTcls": {"Segmentation": np.full((8, 8), 8, np.uint8)}}
            savemat(self.folder / f"benchmark_RELEASE/dataset/cls/{photograph}.mat", mask)
        voc = self.folder / "VOCdevkit/VOC2012"
        for name in ("JPEGImages", "ImageSets/Segmentation", "SegmentationClassAug"):
            (voc / name).mkdir(parents=True)
        for name in ("t1", "t2", "v1"):
            cv2.imwrite(str(voc / f"JPEGImages/{name}.jpg"), np.zeros((8, 8, 3), np.uint8))
            cv2.imwrite(str(voc / f"SegmentationClassAug/{name}.png"), np.full((8, 8), 8, np.uint8))
        (voc / "ImageSets/Segmentation/train_aug.txt").write_text("t2\nt1\n")
        (voc / "ImageSets/Segmentation/val.txt").write_text("v1\n")
        (voc / "ImageSets/image_labels.txt").write_text("t1 cat\nt2 cat dog\nv1 cat\n")
        coco = self.folder / "coco"
        (coco / "annotations").mkdir(parents=True)
        for split in ("train2014", "val2014"):
            (coco / split).mkdir()
            cv2.imwrite(str(coco / split / f"{split}.jpg"), np.zeros((32, 32, 3), np.uint8))
            image = {"id": 1, "file_name": f"{split}.jpg", "height": 32, "width": 32}
            car = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": square, "iscrowd": 0}
            table = {"images": [image], "annotations": [car], "categories": [{"id": 3, "name": "car"}]}
            (coco / f"annotations/instances_{split}.json").write_text(json.dumps(table))

    def fresh(self):
        """What the reader has before a page: a data set of the photographs, a table of tags, a preset."""
        for name in ("data/mine", "predicted", "made", "zoo"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if (self.folder / "kept-zoo").is_dir():
            shutil.copytree(self.folder / "kept-zoo", self.folder / "zoo")
        self.tags()
        (self.folder / "mine.toml").write_text('extends = "folder-lite0"\n[dataset]\npath = "data/mine"\n')
        self.run("prepare", "folder", "photos", "labels.csv", "--out=data/mine")

    def tags(self):
        """The table of the page on own photographs."""
        page = (ROOT / "docs/start/own-photographs.md").read_text()
        (table,) = (block.text for block in blocks(page) if block.language == "csv")
        (self.folder / "labels.csv").write_text(f"{table}\n")

    def run(self, *words, code=0):
        """What a command prints; one that was run before is not run again, but for `prepare`."""
        if words in self.shown and words[0] != "prepare":
            return self.shown[words]
        process = start(self.folder, *words, stdout=subprocess.PIPE)
        shown, said = process.communicate(PATIENCE)
        assert process.returncode in (0, code), f"{words}\n{shown}\n{said}"
        self.shown[words] = shown
        return shown

    def newest(self, stage, name="", place=0):
        """The newest finished run of a stage, of a name where there is one; trials aside."""
        runs = [path for path, record in find_runs(self.folder / "runs", stage) if record.state == "done"]
        runs = [path for path in runs if not limit_of(path)]
        of_name = [path for path in runs if path.name.startswith(f"{stage}-{name}-")]
        return (of_name or [path for path in runs if "-toy-" in path.name])[place].relative_to(self.folder)


def written(reader, words):
    """The words of a command with what stands in for the reader's own, and with tiny schedules."""
    words = [NAMED.sub(lambda name: str(run_named(reader, *name.groups())), word) for word in words]
    for at, word in enumerate(words):
        if word == "RUN":
            words[at] = str(reader.newest(STAGE_OF.get(words[at - 1], "train"), "toy"))
        elif word == "FILE":
            words[at] = str(reader.newest("train", "toy"))
        elif word.startswith("~/"):
            words[at] = word.removeprefix("~/")
    words += ["--share=0.5"] if "--share" in words else []
    name = " ".join(words[:2]) if words[0] in ("prepare", "bench") else words[0]
    if name == "eval" and all(word.startswith("--") for word in words[1:2]) and "--pred" not in words:
        words.insert(1, str(reader.newest("train", "toy")))  # the page may just have planned its training
    preset = words.index("--preset") + 1 if "--preset" in words else 0
    planned = preset and (words[preset] not in RUN or "--limit" in words)
    if preset and not planned and words[0] != "submit":
        words[preset] = words[preset].replace("NAME", "toy")
        small = {key: value for key, value in SMALL.items() if ".head." not in key or "train.head." not in str(words)}
        words = [re.sub(r"(?<=iters=)\d+", "2", word) for word in words]
        words += [f"--set={key}={value}" for key, value in small.items()] if words[0] != "show" else []
        return words + ALSO.get(name, [])
    if planned and "--init" in words:  # a plan reads the file, and that network is one of toy here
        words[preset] = "toy"
        words += [f"--set={key}={value}" for key, value in SMALL.items()] + ["--set=pseudo.threshold.kind=self"]
    if planned and words[0] != "submit":
        return [*words, "--dry-run", *(["--set=backbone_weights=none"] if "backbone" not in str(words) else [])]
    if name == "submit":  # what stands behind -- is the command that is submitted
        return [words[0], *ALSO[name], *words[1:], "--set=backbone_weights=none"]
    return words + ALSO.get(name, [])


def run_named(reader, stage, name):
    return reader.newest(stage, "toy", place=int(name == "b")) if name in ("a", "b") else reader.newest(stage, name)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("reader"))


def why_not(line):
    """Why a line is not run; empty: it is."""
    reasons = [reason for beginning, reason in LISTED.items() if re.match(beginning, line)]
    missing = [name for name, having in NEEDS.items() if re.search(having, line) and find_spec(name) is None]
    return (reasons or [f"{name} is not installed" for name in missing] or [""])[0]


def kind_of(page, block):
    """How a block is tested."""
    name = page.relative_to(ROOT).as_posix()
    language = block.language.split(" ")[0]
    if language == "text":
        return "text"
    if name in ELSEWHERE:
        return "elsewhere"
    if language == "dockerfile" or block.text.startswith("#!/bin/bash"):
        return "elsewhere"
    return language or "lines"


def serve(reader, words, ask=lambda address: None):
    """Start a server, ask it, and end it as its user does."""
    log = reader.folder / "address.txt"
    with log.open("w") as file:
        process = start(reader.folder, *words, "--port=0", stdout=file)
    until = time.monotonic() + PATIENCE
    while not (address := log.read_text().strip()):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    with urllib.request.urlopen(f"{address}/health", timeout=PATIENCE) as answer:
        assert answer.status == 200
    ask(address)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "stopped; " in said, said


def run_line(reader, line):
    words = words_of(line)[1:]
    if line.startswith("curl "):
        assert shutil.which("curl"), "curl asks the server here"
        variables = environment(reader.folder, HOME=str(reader.folder))

        def ask(address):
            there = line.replace("http://127.0.0.1:8000", address)
            subprocess.run(["bash", "-ec", there], cwd=reader.folder, env=variables, check=True, timeout=PATIENCE)

        serve(reader, ["serve", str(reader.newest("train", "toy"))], ask)
        assert cv2.imread(str(reader.folder / "mask.png")) is not None
    elif words[0] == "serve":
        serve(reader, written(reader, words))
    else:
        if words[:2] == ["prepare", "template"]:
            (reader.folder / "labels.csv").unlink()
        code = next((code for option, code in GATES.items() if option in words), 0)
        shown = reader.run(*written(reader, words), code=code)
        if file := re.search(r" > (\S+)", line):
            (reader.folder / file[1]).write_text(shown)
        if words[:2] == ["prepare", "template"]:
            reader.tags()  # which the page asks its reader to write


def run_python(reader, text, monkeypatch):
    monkeypatch.chdir(reader.folder)
    exec(text, {"image": np.zeros((33, 40, 3), np.uint8), "x": torch.zeros(1, 3, 64, 64)})  # the page's own code


def take_table(reader, block):
    """A table or a record of a page: `image,labels` is the reader's table, `id,image` a list of a data set."""
    text = block.text.replace("/photos/trip", f"{reader.folder}/photos/holiday")
    text = text.replace("s3://bucket", f"file://{reader.folder}/photos")
    if text.startswith("image,labels"):
        return  # the table that `Reader` has
    place = block.language.partition("file=")[2] or "splits/train.csv"
    file = reader.folder / "data/by-hand" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    if place.endswith("csv"):
        (sample,) = open_dataset(reader.folder / "data/by-hand").split("train")
        assert read_image(sample.image).shape == (32, 32, 3) and sample.labels


def plan_preset(reader, text):
    """A table of a preset is one that is valid, with `extends` where it has none."""
    file = reader.folder / "block.toml"
    file.write_text(text if text.startswith("extends") else f'extends = "toy"\n{text}')
    load_preset(str(file))
    if text.startswith("extends"):
        (reader.folder / "mine.toml").write_text(text)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text())], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(reader, page, monkeypatch):
    if any(not block.language and "wsss " in block.text for block in blocks(page.read_text())):
        reader.fresh()
    if "train.supervision=partial" in page.read_text() and "prepare labels" not in page.read_text():
        reader.run("prepare", "labels", "data/mine", "scribbles", "--kind=partial")  # which another page tells of
    for block in blocks(page.read_text(encoding="utf-8")):
        match kind_of(page, block):
            case "lines":
                for line in lines_of(block.text):
                    if not why_not(line):
                        assert line.startswith(("wsss ", "curl ")), f"{page.name}:{block.line}: {line} is not listed"
                        print(f"{page.name}:{block.line}: {line}")
                        run_line(reader, line)
            case "python":
                run_python(reader, block.text, monkeypatch)
            case "toml":
                plan_preset(reader, block.text)
            case "json" | "csv":
                if block.language.startswith("json"):
                    json.loads(block.text)
                take_table(reader, block)
            case "text" | "elsewhere":
                continue
            case other:
                pytest.fail(f"{page.name}:{block.line}: nothing runs a block of {other}")


def test_the_newest_training_is_taken_where_none_is_named(reader):
    reader.fresh()
    done = wsss(reader.folder, "infer", "photos", "--out=predicted")
    assert done.returncode == 0
    masks = {file.name for file in (reader.folder / "predicted/masks").iterdir()}
    assert masks == {"holiday", "003.png", "004.png", "2024-05.png"}
    (newest,) = re.findall(r"newest finished training run: (.*)", done.stderr)
    runs = [path for path, _ in find_runs(reader.folder / "runs", "train") if not limit_of(path)]
    assert reader.folder / newest == runs[0]
    nothing = wsss(reader.folder, "infer", "runs/train-toy-00000000", "photos", "--out=other")
    assert nothing.returncode == 2
    assert "runs/train-toy-00000000" in nothing.stderr.partition("error: ")[2]
    alone = wsss(reader.folder, "infer", newest, "--out=other")
    assert alone.returncode == 2
    assert "no photographs are named after" in alone.stderr
    exported = wsss(reader.folder, "export", "--out=newest.pt")
    assert exported.returncode == 0 and (reader.folder / "newest.pt").is_file()
    assert "newest finished training" in exported.stderr


def test_what_is_listed_is_there():
    lines = [line for page in PAGES for block in blocks(page.read_text()) for line in lines_of(block.text)]
    for beginning in LISTED:
        assert any(re.match(beginning, line) for line in lines), beginning
    for page in ELSEWHERE:
        assert (ROOT / page).is_file()


def test_no_block_of_text_hides_commands():
    hidden = [
        line
        for page in PAGES
        for block in blocks(page.read_text())
        if block.language == "text"
        for line in lines_of(block.text)
        if re.match(r"(wsss|python|pip) ", line)
    ]
    assert not hidden


if os.environ.get("WSSS_LIST_BLOCKS"):  # how many blocks are tested in which way
    for each in PAGES:
        kinds = [kind_of(each, block) for block in blocks(each.read_text())]
        print(each.relative_to(ROOT), {kind: kinds.count(kind) for kind in sorted(set(kinds))})
