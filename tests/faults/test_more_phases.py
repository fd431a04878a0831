"""Stops in the phases that `test_phases` leaves out: affinity networks and their walks, other CAM methods, further
rounds, commands that only read, importers of published data sets, the demo.

Commands without a line of progress are stopped as they open a file, which a hook says. `make faults` sends two signals
in every phase; here is one each to an importer and to `verify`.
"""

import json
import os
import shutil
from ast import literal_eval

import command
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from test_phases import SIGNALS, stop_at

STORM = bool(os.environ.get("WSSS_STORM"))
SETTINGS = (
    "classifier.iters=4 classifier.batch=2 classifier.crop=32 classifier.backbone.weights=none "
    "classifier.data_workers=1 classifier.log_interval=1 cam.scales=[1.0] cam.flip=false train.iters=4 train.batch=2 "
    "train.crop=32 train.data_workers=1 train.checkpoint_interval=1000 train.log_interval=1 "
    "train.backbone.weights=none train.head.aspp_channels=8 train.head.low_channels=8 eval.scales=[1.0]"
)
COMMON = ["--device", "cpu", *(f"--set={setting}" for setting in SETTINGS.split())]
NETWORK = 'iters=4,batch=2,log_interval=1,data_workers=1,backbone={name="resnet18",weights="none"}'
IRN = f"--set=affinity.irn={{crop=32,{NETWORK}}}"
WALK = '{kind="irn-walk",iterations=4}'
RUN = [
    *("run", "--preset", "toy", *COMMON, IRN, f"--set=affinity.psa={{crop=64,{NETWORK}}}", "--set=rounds=2"),
    '--set=cam.method={kind="lpcam",clusters=2,images_per_class=2}',
    f'--set=pseudo.steps=[{WALK},{{kind="psa-walk",iterations=4}}]',
]
PSEUDO = ["pseudo", "--preset", "toy", *COMMON, IRN, f"--set=pseudo.steps=[{WALK}]"]
RECAM = ["cam", "--preset", "toy", *COMMON, '--set=cam.method={kind="recam",iters=8}']
DEMO = ["demo", "--images", "8", "--out", "demo", *COMMON]
COCO = ["prepare", "coco14", "--root", "coco", "--out", "data/coco"]
VOC = ["prepare", "voc-aug", "--devkit", "VOCdevkit", "--out", "data/voc"]
OPENING = "opening "
PHASES = {  # (command, how the line begins that shows the phase)
    "prototypes": (RUN, "prototypes  0/"),
    "labels of the networks": (RUN, "affinity labels  0/"),
    "IRN": (RUN, "boundary network  "),
    "PSA": (RUN, "AffinityNet  "),
    "IRN's walk": (RUN, "random walk (irn)  0/"),
    "PSA's walk": (RUN, "random walk (psa)  0/"),
    "masks of the network": (RUN, "masks of the network  0/"),
    "one walk": (PSEUDO, "random walk (irn)  0/"),
    "ReCAM": (RECAM, "second classifier  "),
    "CRF of the evaluation": (["eval", "TRAINED", "--ms-flip", "--crf"], "eval, ms+flip  0/"),
    "scoring a folder": (
        ["eval", "--pred", "data/toy/SegmentationClass", "--truth", "data/toy/SegmentationClass", "--num-classes", "6"],
        OPENING + "train_000004.png",
    ),
    "table": (["table"], OPENING + "run.json"),
    "verify a data set": (["verify", "data/toy"], OPENING + "train_000004.jpg"),
    "verify a run": (["verify", "PSEUDO"], OPENING + "train_000004.png"),
    "weights inspect": (["weights", "inspect", "TRAINED"], OPENING + "model.safetensors"),
    "weights import-mmseg": (["weights", "import-mmseg", "v1c.pth", "--out", "zoo"], OPENING + "model.safetensors."),
    "voc: looks": (VOC, "checking masks  0/"),
    "voc: masks": (VOC, "converting masks  0/"),
    "coco: sizes": (COCO, "reading sizes  0/"),
    "coco: masks": (COCO, "painting masks  0/"),
    "demo: data": (DEMO, "== prepare"),
    "demo: training": (DEMO, "deeplabv3plus, full  "),
    "demo: infer": (DEMO, "infer  0/"),
    "demo: pictures": (DEMO, "== pictures"),
}
QUICK = ("coco: masks", "verify a data set")
CHAINS = (0, 2) if STORM else (0,)  # signals begin with that, from phase to phase with the next
TRIALS = [
    (chain, phase, SIGNALS[(chain + k) % len(SIGNALS)], (chain // 2 + k) % 2 == 0)
    for chain in CHAINS
    for k, phase in enumerate(PHASES if STORM else QUICK)
]
NAMES = [f"{phase}-{number.name}-{'group' if group else 'process'}" for _, phase, number, group in TRIALS]
HOOK = """
import os, sys, time
named = os.environ.get("WSSS_TEST_OPENING", "")
def hook(event, arguments):
    global named
    if event == "open" and named and isinstance(arguments[0], str) and named in os.path.basename(arguments[0]):
        before, named = named, ""
        os.write(2, f"opening {before}\\n".encode())
        time.sleep(2.0)
sys.addaudithook(hook)
"""


def draw_voc(root, count):
    """A devkit of `count` photographs in train, twice as many with SBD's masks alone, and two in val."""
    ids = {"train": [f"t{number:03}" for number in range(count)], "val": ["v1", "v2"]}
    more = [f"s{number:03}" for number in range(2 * count)]
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / "VOCdevkit/VOC2012" / folder).mkdir(parents=True)
    sbd = root / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    voc = root / "VOCdevkit/VOC2012"
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40] = 8
    for name in (*ids["train"], *ids["val"], *more):
        Image.new("RGB", (64, 64), (9, 99, len(name))).save(voc / "JPEGImages" / f"{name}.jpg")
        (voc / "Annotations" / f"{name}.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
        if name in more:
            parts = {"Boundaries": np.zeros((20, 1), object), "Segmentation": mask, "CategoriesPresent": [[0, 8]]}
            savemat(sbd / "cls" / f"{name}.mat", {"GTcls": parts}, do_compression=True)
        else:
            Image.fromarray(mask).save(voc / "SegmentationClass" / f"{name}.png")
    for split, names in ids.items():
        (voc / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (sbd / "train.txt").write_text("".join(f"{name}\n" for name in more))
    (sbd / "val.txt").write_text("v1\n")


def draw_coco(root, count):
    """`count` photographs a split, each with one box."""
    for split in ("train", "val"):
        folder = root / "coco" / f"{split}2014"
        folder.mkdir(parents=True)
        images = [
            {"id": key, "file_name": f"COCO_{split}2014_{key}.jpg", "height": 64, "width": 96} for key in range(count)
        ]
        box = [4, 4, 60, 4, 60, 40, 4, 40]
        shapes = [
            {"id": key, "image_id": key, "category_id": 17, "segmentation": [box], "iscrowd": 0} for key in range(count)
        ]
        for image in images:
            Image.new("RGB", (96, 64)).save(folder / image["file_name"])
        (root / "coco/annotations").mkdir(exist_ok=True)
        record = {"images": images, "annotations": shapes, "categories": [{"id": 17, "name": "cat"}]}
        (root / "coco/annotations" / f"instances_{split}2014.json").write_text(json.dumps(record))


def draw_weights(root):
    """A v1c backbone of zeros."""
    rows = (command.ROOT / "tests/golden/mmseg_r50_state_dict.txt").read_text().splitlines()
    shapes = {key: literal_eval(shape) for key, shape, _ in (row.split("\t") for row in rows)}
    body = {key.removeprefix("backbone."): shape for key, shape in shapes.items() if key.startswith("backbone.")}
    state = {key: torch.zeros(shape) for key, shape in (body | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}).items()}
    torch.save({"state_dict": state}, root / "v1c.pth")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a chain."""
    folders = {}

    def folder_of(chain):
        if chain not in folders:
            folders[chain] = folder = tmp_path_factory.mktemp("chain")
            prepared = ["prepare", "toy", "--images", "12", "--val", "4", "--size", "64", "--seed", "1"]
            assert command.wsss(folder, *prepared).returncode == 0
            draw_coco(folder, 200)
            if STORM:
                draw_voc(folder, 100)
                draw_weights(folder)
            (folder / "hook").mkdir()
            (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        return folders[chain]

    return folder_of


def newest(folder, stage):
    """A finished run of a stage; the chain is whole by then."""
    assert command.wsss(folder, *RUN).returncode == 0
    return str(max((folder / "runs").glob(f"{stage}-*"), key=lambda run: run.stat().st_mtime).relative_to(folder))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("chain", "phase", "number", "group"), TRIALS, ids=NAMES)
def test_a_stop_in_each_phase_of_the_rarer_commands(folder_of, chain, phase, number, group):
    folder = folder_of(chain)
    arguments, mark = PHASES[phase]
    for word, stage in (("TRAINED", "train"), ("PSEUDO", "pseudo")):
        if word in arguments:
            run = newest(folder, stage)
            arguments = [run if each == word else each for each in arguments]
    more = {}
    if mark.startswith(OPENING):
        path = f"{folder / 'hook'}{os.pathsep}{command.ROOT}"
        more = {"WSSS_TEST_OPENING": mark.removeprefix(OPENING), "PYTHONPATH": path}
    stop_at(folder, arguments, mark, number, group=group, **more)
    if arguments not in (RUN, DEMO) or phase == "demo: pictures":  # the other phases go on with these
        assert command.wsss(folder, *arguments).returncode == 0
        assert [path for path in folder.rglob(".*.part") if "runs" not in path.parts] == []
        for place in ("data/voc", "data/coco", "zoo", "demo"):  # for the next signal
            shutil.rmtree(folder / place, ignore_errors=True)


@pytest.mark.skipif(not STORM, reason="make faults runs it")
def test_all_chains_of_the_rarer_commands_end_well(folder_of):
    for chain in CHAINS:
        assert command.wsss(folder_of(chain), *RUN).returncode == 0
        assert list(folder_of(chain).rglob(".*.part")) == []
