"""A stop signal in each phase of each command: the right code, soon, no process left; the same command again ends well.

The commands of a chain work in one folder, so that each goes on from where the one before was stopped. `make faults`
sends every signal in every phase, to the process and to its group in turn.
"""

import os
import shutil
import signal
import time

import command
import pytest

SETTINGS = (
    "classifier.iters=8 classifier.batch=2 classifier.crop=32 classifier.backbone.weights=none "
    "classifier.log_interval=1 cam.scales=[0.5,1.0] cam.flip=false train.iters=8 train.batch=2 train.crop=32 "
    "train.data_workers=1 train.checkpoint_interval=1000 train.log_interval=1 train.backbone.weights=none "
    "train.head.aspp_channels=8 train.head.low_channels=8 eval.scales=[1.0]"
)
RUN = ["run", "--preset", "toy", "--device", "cpu", *(f"--set={setting}" for setting in SETTINGS.split())]
PHASES = {  # (command, how the line begins that shows the phase)
    "classifier": (RUN, "classifier  "),
    "CAMs": (RUN, "CAMs  0/"),
    "seed curve": (RUN, "seed curve  0/"),
    "pseudo masks": (RUN, "pseudo masks  0/"),
    "scoring masks": (RUN, "scoring masks  0/"),
    "training": (RUN, "deeplabv3plus, weak  "),
    "evaluation": (RUN, "eval, ms+flip  0/"),
    "infer": (["infer", "TRAINED", "data/toy/JPEGImages", "--out", "predicted", "--ms-flip"], "infer  0/"),
    "export": (["export", "TRAINED", "--format", "torchscript", "--out", "x.pt"], "writing torchscript"),
    "bench": (["bench", "crf", "--height", "24", "--width", "24", "--repeats", "2"], "dense CRF  0/"),
    "prepare folder": (
        ["prepare", "folder", "data/toy/JPEGImages", "tags.csv", "--out", "data/mine"],
        "checking images",
    ),
    "prepare toy": (["prepare", "toy", "--images", "300", "--size", "64", "--out", "data/more"], "drawing  0/"),
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
QUICK = ("classifier", "CAMs", "pseudo masks", "training", "evaluation", "infer", "export", "prepare folder")
if os.environ.get("WSSS_STORM"):
    TRIALS = [(phase, number, (i + k) % 2 == 0) for i, number in enumerate(SIGNALS) for k, phase in enumerate(PHASES)]
else:
    TRIALS = [(phase, SIGNALS[at % 5], at % 2 == 0) for at, phase in enumerate(QUICK)]
NAMES = [f"{phase}-{number.name}-{'group' if group else 'process'}" for phase, number, group in TRIALS]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a chain."""
    folders = {}

    def folder_of(chain):
        if chain not in folders:
            folders[chain] = folder = tmp_path_factory.mktemp("chain")
            done = command.wsss(
                folder, *["prepare", "toy", "--images", "48", "--val", "24", "--size", "64", "--seed", "1"]
            )
            assert done.returncode == 0
            photographs = sorted((folder / "data/toy/JPEGImages").iterdir())
            (folder / "tags.csv").write_text("image,labels\n" + "".join(f"{path.name},cat\n" for path in photographs))
        return folders[chain]

    return folder_of


def trained(folder):
    """The training of the chain, whole."""
    assert command.wsss(folder, *RUN).returncode == 0
    return str(next((folder / "runs").glob("train-*")).relative_to(folder))


def stop_at(folder, arguments, mark, number, *, group, **more):
    """Send a signal to a command, or to its group, when it shows a line that begins with `mark`; what it said then.

    Args:
        more: environment variables.
    """
    process = command.start(folder, *arguments, **more)
    for line in process.stderr:
        if line.startswith(mark):
            break
    else:
        pytest.fail(f"{mark!r} was not seen; exit code {process.wait()}")
    (os.killpg if group else os.kill)(process.pid, number)
    begin = time.monotonic()
    _, talk = process.communicate(timeout=command.PATIENCE)
    assert time.monotonic() - begin < command.GRACE_S
    if process.returncode or "done: " not in talk:  # all may be done when the signal is heard
        assert process.returncode == (130 if number == signal.SIGINT else 75), talk
    assert "Traceback" not in talk and "a bug" not in talk
    assert command.left_of(process.pid, 10.0) == 0


@pytest.mark.parametrize(("phase", "number", "group"), TRIALS, ids=NAMES)
def test_a_stop_in_each_phase(folder_of, phase, number, group):
    folder = folder_of(number if os.environ.get("WSSS_STORM") else "quick")
    arguments, mark = PHASES[phase]
    if "TRAINED" in arguments:
        run = trained(folder)
        arguments = [run if word == "TRAINED" else word for word in arguments]
    stop_at(folder, arguments, mark, number, group=group)
    if arguments is not RUN:  # the other phases of the chain go on with that
        assert command.wsss(folder, *arguments).returncode == 0
        assert [path for path in folder.rglob(".*.part") if "runs" not in path.parts] == []
        for place in ("predicted", "x.pt", "x.pt.json", "data/mine", "data/more"):  # for the next signal
            path = folder / place
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def test_all_chains_end_well(folder_of):
    chains = SIGNALS if os.environ.get("WSSS_STORM") else ["quick"]
    for chain in chains:
        folder = folder_of(chain)
        assert command.wsss(folder, *RUN).returncode == 0
        assert list(folder.rglob(".*.part")) == []
