"""`train.ema`, `train.patience` and `train.deterministic` in whole trainings."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import identity
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import read_json, sha256_file, write_json
from wsss_cli.inference.network import Which, load_network
from wsss_cli.scoring.results import finished_eval
from wsss_cli.stages.evaluate import run_eval
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_train
from wsss_cli.stages.training import deterministic
from wsss_cli.stages.verify import _look_at_checkpoint

SMALL = [
    "train.supervision=full", "train.iters=3", "train.batch=2", "train.crop=32", "train.data_workers=0",
    "train.precision=fp32", "train.backbone.name=resnet10t", "train.backbone.weights=none",
    "train.backbone.output_stride=32", "train.head={kind='fcn', channels=8}", "train.aux.weight=0.0",
    "eval.scales=[1.0]", "train.val_interval=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains on a tiny data set: the run's directory."""
    folder = tmp_path_factory.mktemp("averaged")
    prepare_toy(folder / "toy", images=4, val=2, seed=0, size=32)

    def trained(*settings):
        preset = load_preset("toy", [f"dataset.path={folder / 'toy'}", *SMALL, *settings])
        ctx = Context(torch.device("cpu"), folder / "runs")
        exp = open_experiment(preset, ctx.runs)
        steps = plan_train(exp, None, lambda line: None)
        run_steps(steps, exp, ctx)
        return steps[-1].path

    return trained


def test_the_average_is_what_is_scored_and_used(trained):
    run, plain = trained("train.ema=0.9"), trained()
    assert run != plain
    ctx = Context(torch.device("cpu"), run.parent)
    files = {"ema": "ema.safetensors", "raw": "model.safetensors"}
    stored = {name: load_file(run / "checkpoints/step-00000003" / file) for name, file in files.items()}
    for name, asked in (("ema", ""), ("ema", "ema"), ("raw", "raw")):
        network = load_network(run, ctx, Which(weights=asked))
        assert network.weights == name
        assert ("weights averaged (EMA 0.9)" in network.origin) == (name == "ema")
        assert all(torch.equal(tensor, stored[name][key]) for key, tensor in network.model.state_dict().items())
    assert any(not torch.equal(stored["ema"][key], tensor) for key, tensor in stored["raw"].items())
    before = load_file(plain / "checkpoints/step-00000003/model.safetensors")
    assert all(torch.equal(before[key], tensor) for key, tensor in stored["raw"].items())  # it changes no training
    assert not (plain / "checkpoints/step-00000003/ema.safetensors").exists()
    scores = run_eval(run, ctx, ms_flip=False)
    assert (scores["weights"], finished_eval(run, ms_flip=False)) == ("ema", scores)
    assert run_eval(run, ctx, ms_flip=False, which=Which(weights="raw"))["weights"] == "raw"
    assert finished_eval(run, ms_flip=False) is None
    with pytest.raises(UsageError, match=r"has no averaged weights: train\.ema is 0"):
        load_network(plain, ctx, Which(weights="ema"))


def test_weights_without_what_their_network_is_are_told_as_such(trained, tmp_path):
    run = trained()
    ctx = Context(torch.device("cpu"), tmp_path)
    shutil.copytree(run / "checkpoints/step-00000003", tmp_path / "alone")
    with pytest.raises(WeightsError, match="that stands in the run of a checkpoint") as caught:
        load_network(tmp_path / "alone", ctx)
    assert caught.value.hint.startswith("copy the whole run, and name that")
    shutil.copytree(run, tmp_path / "other")
    lock = tmp_path / "other" / "preset.lock.toml"
    lock.write_text(lock.read_text().replace("channels = 8", "channels = 16"))
    with pytest.raises(WeightsError, match=r"does not fit the network of .*: size mismatch for .*") as caught:
        load_network(tmp_path / "other", ctx)
    assert "edited" in caught.value.hint


def test_scores_of_other_views_stay_where_all_else_is_the_same(trained):
    run = trained("eval.crf.iterations=1")
    ctx = Context(torch.device("cpu"), run.parent)
    both = run_eval(run, ctx, ms_flip=True)
    assert run_eval(run, ctx, ms_flip=False, crf=True)["ms_flip"] == both["ms_flip"]
    one = run_eval(run, ctx, ms_flip=False)
    assert one == finished_eval(run, ms_flip=True) and one["ms_flip"] == both["ms_flip"] and "single_crf" in one
    lines = "\n".join(one["protocol"])
    assert "ms+flip: scales" in lines and "CRF on the probabilities" in lines and "no CRF" not in lines
    other = run_eval(run, ctx, ms_flip=False, views={"scales": (0.5,)})  # of which ms+flip would be another figure
    assert "ms_flip" not in other and "no CRF" in other["protocol"]


def test_a_damaged_average_is_seen(trained):
    run = trained("train.ema=0.8")
    file = run / "checkpoints/step-00000003/ema.safetensors"
    _look_at_checkpoint(file.parent)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"ema\.safetensors is damaged"):
        _look_at_checkpoint(file.parent)


def test_deterministic_is_for_the_training_alone(trained, monkeypatch):
    from wsss_cli.stages.segmentation import SegmentationTask

    seen, losses = [], SegmentationTask.losses
    monkeypatch.setattr(
        SegmentationTask,
        "losses",
        lambda self, batch: (seen.append(torch.are_deterministic_algorithms_enabled()), losses(self, batch))[1],
    )
    trained("train.deterministic=true")
    assert seen == [True] * 3
    assert not torch.are_deterministic_algorithms_enabled()
    with (
        pytest.raises(UsageError, match="deterministic = true: x_cuda does not have"),
        deterministic(True),
    ):
        raise RuntimeError("x_cuda does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="other"), deterministic(True):
        raise RuntimeError("other")


def test_intervals_of_validations_are_part_of_what_patience_makes():
    def known(*settings):
        return identity(load_preset("toy", ["train.val_interval=10", *settings]), "train")

    assert known() == known("train.val_interval=20") == known("train.patience=0", "train.ema=0.0", "train.lr_per=0")
    assert len({known("train.patience=2"), known("train.patience=2", "train.val_interval=20"), known()}) == 3
    with pytest.raises(UsageError, match="patience counts validations, and val_interval is 0"):
        load_preset("toy", ["train.patience=2"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tensor: tensor.fill_(float("nan")), "running_var is not finite"),
        (lambda tensor: tensor.fill_(-1.0), "gives scores that are not finite"),  # the root of a variance below 0
    ],
)
def test_a_network_whose_scores_are_not_finite_is_not_used(trained, tmp_path, spoil, said):
    run = tmp_path / "run"
    shutil.copytree(trained(), run)
    checkpoint = run / "checkpoints/step-00000003"
    state = load_file(checkpoint / "model.safetensors")
    spoil(next(state[name] for name in state if name.startswith("backbone") and name.endswith("running_var")))
    save_file(state, checkpoint / "model.safetensors")
    meta = read_json(checkpoint / "meta.json")
    meta["sha256"]["model.safetensors"] = sha256_file(checkpoint / "model.safetensors")
    write_json(checkpoint / "meta.json", meta)
    with pytest.raises(WeightsError, match=said):
        load_network(run, Context(torch.device("cpu"), tmp_path))
