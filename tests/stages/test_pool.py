"""What a pool of other processes makes of a sweep is what this process makes, whatever the order in which it comes."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluate import Colours

from wsss_cli.config.load import load_preset
from wsss_cli.data import batches
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.toy import CLASSES, prepare_toy
from wsss_cli.engine import devices
from wsss_cli.engine.context import Context
from wsss_cli.engine.devices import check_ray
from wsss_cli.engine.sweep import Batch, SweepOptions, sweep, sweep_items
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.network import Network
from wsss_cli.labels import voc_palette
from wsss_cli.stages.infer import run_infer
from wsss_cli.stages.network_scores import ScoreOptions, score_network


class Backwards:
    """The last batch first, each by itself; what comes of it has crossed the border of a process."""

    def __init__(self):
        self.batches = 0

    def entries(self, work, numbered):
        for number, batch in reversed(list(numbered)):
            self.batches += 1
            for place, _, outcome in list(work.entries([(number, batch)], len(batch.items))):
                place, outcome = pickle.loads(pickle.dumps((place, outcome)))
                yield place, batch.items[place[1]], outcome


@dataclass(frozen=True)
class Item:
    number: int

    @property
    def id(self):
        return f"item {self.number}"


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path, pool=Backwards())


def whole(number):
    if number % 3 == 1:
        raise DataError(f"{number} is torn")
    return 10 * number


def test_losses_stand_in_order_and_all_others_are_done(ctx):
    items, lost, said = [Item(number) for number in range(8)], [], []
    pairs = sweep(
        [Batch(items[:3]), Batch(items[3:6]), Batch(items[6:])],
        lambda item: whole(item.number),
        lambda loaded: [value + 1 for value in loaded],
        lambda value: value + 1,
        SweepOptions("a sweep"),
        lost,
        ctx,
        said.append,
    )
    done = list(pairs)
    assert [item.number for item, _ in done] == [6, 3, 5, 0, 2]
    assert [value for _, value in done] == [62, 32, 52, 2, 22]
    assert [entry["id"] for entry in lost] == ["item 1", "item 4", "item 7"]
    assert said[0] == "lost item 7: 7 is torn"
    assert ctx.pool.batches == 3


def test_items_that_are_finished_as_they_are_go_there_too(ctx):
    items, lost = [Item(number) for number in range(5)], []
    options = SweepOptions("items")
    done = {item.number: value for item, value in sweep_items(items, lambda i: whole(i.number), options, lost, ctx)}
    assert done == {0: 0, 2: 20, 3: 30}
    assert [entry["id"] for entry in lost] == ["item 1", "item 4"]
    assert list(sweep_items([], lambda i: whole(i.number), options, lost, ctx)) == []


def test_scores_and_masks_are_those_of_this_process(ctx, tmp_path, monkeypatch):
    monkeypatch.setitem(batches.PIXELS_PER_BATCH, "cpu", 2 * 64 * 64)
    prepare_toy(tmp_path / "toy", images=1, val=7, size=64)
    dataset, preset = open_dataset(tmp_path / "toy"), load_preset("toy", ["eval.scales=[1.0]"])
    samples, here = dataset.split("val"), Context(torch.device("cpu"), tmp_path)

    def score(ctx):
        options = ScoreOptions(ms_flip=True, boundary=True)
        images = tmp_path / "images.npz"
        scores = score_network(Colours(), samples, dataset, preset, ctx, options=options, title="eval", images=images)
        return scores, images.read_bytes()

    assert score(ctx) == score(here)
    assert ctx.pool.batches == 4

    network = Network(Colours(), preset, CLASSES, voc_palette(6), 3, "data/toy", "run 1")
    photographs = [tmp_path / f"photo{number}.png" for number in range(5)]
    for number, file in enumerate(photographs):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + 10 * (number % 2), 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    photographs[1].write_bytes(b"torn")
    photographs[2].write_bytes(photographs[2].read_bytes()[:-30])
    summaries = [
        run_infer(network, photographs, tmp_path / out, c, ms_flip=False) for out, c in (("a", ctx), ("b", here))
    ]
    assert summaries[0]["images"] == 3
    assert summaries[0]["lost"] == summaries[1]["lost"]
    files = [{f.name: f.read_bytes() for f in sorted((tmp_path / out).glob("*/*.png"))} for out in ("a", "b")]
    assert files[0] == files[1] and len(files[0]) == 3


def test_without_ray_a_line_says_how_it_is_had(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs Ray, which is not installed \(install wsss\[ray\]: pip"):
        check_ray()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--address", "host:6379"), "--address is that of a Ray cluster"),
        (("--engine", "ray", "--gpus", "2"), "--engine ray divides the images among its own workers"),
        (("--engine", "ray", "--shard", "1/2"), "--engine ray divides the images among its own workers"),
        (("--engine", "ray", "--device", "cuda:1"), "--engine ray takes each GPU of the cluster"),
        (("--engine", "spark"), "'spark' is not one of 'local', 'ray'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(wsss, arguments, says):
    done = wsss("cam", "--preset", "toy", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
