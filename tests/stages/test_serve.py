"""`wsss serve`: what it answers, what it refuses, how it ends."""

import base64
import contextlib
import gzip
import io
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from command import PATIENCE, start, wsss
from PIL import Image
from test_infer import Sees

from wsss_cli.cli import serve as serve_command
from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.errors import ResourceError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict
from wsss_cli.stages import serve as serve_module
from wsss_cli.stages.serve import Limits, Visits, application

uvicorn = pytest.importorskip("uvicorn")
CLASSES = ("background", "<b>cat</b>", "dog", "cow", "horse", "sheep")
COLORS = tuple((20 * number, 0, 0) for number in range(len(CLASSES)))


@pytest.fixture
def network():
    preset = load_preset("toy", ["train.precision=fp32"])
    return Network(Sees(), preset, CLASSES, COLORS, 1, "data/toy", "drawn")


@pytest.fixture
def served(network, tmp_path):
    """Serves with some limits; gives the address."""
    with contextlib.ExitStack() as stack:

        def serving(**limits):
            ctx = Context(torch.device("cpu"), tmp_path)
            web = application(network, "train-toy", Limits(**limits), ctx, ms_flip=False)
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = uvicorn.Server(uvicorn.Config(web, log_level="warning", lifespan="off"))
            worker = threading.Thread(target=server.run, args=([sock],))
            worker.start()
            stack.callback(worker.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{sock.getsockname()[1]}"

        yield serving


def asked(address, data=None, form="application/x-www-form-urlencoded", **headers):
    """(status, body, headers) of an answer."""
    request = urllib.request.Request(address, data, {"Content-Type": form, **headers})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def picture(height, width, form="PNG"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return pixels, buffer.getvalue()


def test_a_photograph_is_answered_with_its_mask(served, network, tmp_path):
    address = served()
    pixels, data = picture(30, 40)
    config, ctx = network.preset.eval, Context(torch.device("cpu"), tmp_path)
    expected = predict(network.model, [pixels], config, ctx, "fp32", single=True, ms_flip=False)["single"][0]
    status, body, headers = asked(f"{address}/predict?as=mask", data)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), expected)
    status, body, headers = asked(f"{address}/predict?as=overlay", data)
    assert Image.open(io.BytesIO(body)).size == (40, 30)
    status, body, _ = asked(f"{address}/predict", data)
    answer = json.loads(body)
    assert (answer["width"], answer["height"]) == (40, 30)
    assert sum(one["share"] for one in answer["classes"]) == pytest.approx(1)
    shares = {one["name"]: one["share"] for one in answer["classes"]}
    assert shares == {network.classes[k]: np.mean(expected == k) for k in np.unique(expected)}
    mask = base64.b64decode(answer["mask"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask))), expected)


def test_the_page_asks_nothing_of_other_servers(served):
    address = served()
    status, body, headers = asked(address)
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert b"http" not in body and "default-src 'self'" in headers["Content-Security-Policy"]
    about = json.loads(asked(f"{address}/health")[1])
    assert about == {"network": "train-toy", "classes": list(CLASSES), "megabytes": 20}
    assert asked(f"{address}/other")[0] == 404
    assert asked(f"{address}/predict")[0] == 405


def parts(count):
    for _ in range(count):
        yield bytes(2**18)


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        (b"no photograph", 400, "the file is no photograph that can be read"),
        (b"", 400, "the file is no photograph that can be read"),
        (
            picture(30, 40, "JPEG")[1][:-300],
            400,
            "the file cannot be decoded: it is damaged, or was cut off on the way",
        ),
        (picture(1100, 1000)[1][:900], 400, "a photograph of 1000x1100 has more than 1 megapixels"),
        (bytes(2**20 + 1), 413, "the file has more than 1 MB"),
        (parts(8), 413, "the file has more than 1 MB"),  # of a length that nobody says before
    ],
)
def test_what_is_no_photograph_or_too_large_is_refused_with_a_sentence(served, data, status, error):
    address = served(megabytes=1, megapixels=1)
    code, body, _ = asked(f"{address}/predict", data)
    said = json.loads(body)
    assert code == status
    assert error in said["error"] and said["hint"] and "list" not in said["hint"]
    assert asked(f"{address}/predict", picture(30, 40)[1])[0] == 200


def test_who_waits_for_a_word_is_told_before_the_file_is_sent(served):
    address = served(megabytes=1)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {2**21}\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(64).startswith(b"HTTP/1.1 413 ")


def test_a_thousand_photographs_are_answered(served):
    address = served(per_minute=0)
    data = picture(8, 8)[1]
    assert {asked(f"{address}/predict?as=mask", data)[0] for _ in range(1000)} == {200}


def test_too_many_from_one_address_are_told_to_wait(served):
    address = served(per_minute=3)
    answers = [asked(f"{address}/predict", picture(8, 8)[1]) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1][2]["Retry-After"]) <= 61
    assert json.loads(answers[-1][1])["error"] == "more than 3 photographs a minute"


def test_an_address_may_come_again_after_a_minute():
    visits = Visits(2)
    assert [visits.wait("a", now) for now in (0.0, 30.0, 31.0, 60.5, 61.0)] == [0, 0, 30, 0, 30]
    assert visits.wait("b", 31.0) == 0


def test_too_many_at_once_are_sent_away_and_memory_that_runs_out_ends_nothing(served, monkeypatch):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*arguments, **how):
        begun.release()
        assert go_on.wait(PATIENCE)
        raise ResourceError("out of memory with one image of 8x8", "a smaller photograph")

    monkeypatch.setattr(serve_module, "predict", slow)
    address, data, answers = served(waiting=1), picture(8, 8)[1], []
    client = threading.Thread(target=lambda: answers.append(asked(f"{address}/predict", data)))
    client.start()
    assert begun.acquire(timeout=PATIENCE)
    status, body, headers = asked(f"{address}/predict", data)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert json.loads(body)["error"] == "1 photograph is waiting, 0 on their way"
    go_on.set()
    client.join(PATIENCE)
    assert [(status, json.loads(body)["error"]) for status, body, _ in answers] == [
        (413, "out of memory with one image of 8x8")
    ]
    monkeypatch.undo()
    assert asked(f"{address}/predict", data)[0] == 200


def sent(address, data, length=None):
    """A connection on which a file is posted that is said to be of `length` bytes."""
    host, port = address.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=PATIENCE)
    sock.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(data)}\r\n\r\n".encode() + data)
    return sock


def test_files_that_stop_on_their_way_hold_no_place_and_end(served):
    address, data = served(waiting=2, silence=1.0, per_minute=0), picture(8, 8)[1]
    slow = [sent(address, data[:9], len(data)) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for sock in slow:
            stack.enter_context(sock)
        assert b" 408 " in slow[0].recv(4096)
    slow = [sent(address, data[:9], len(data)) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for sock in slow:
            stack.enter_context(sock)
        assert asked(f"{address}/predict", data)[0] == 200


def test_who_has_left_takes_no_time_of_the_network(served, monkeypatch):
    address, begun, begin, status = served(waiting=4), [], threading.Event(), []

    def slow(*args, **kwargs):
        begun.append(1)
        begin.wait(PATIENCE)
        return answered(*args, **kwargs)

    answered = serve_module.answered
    monkeypatch.setattr(serve_module, "answered", slow)
    _, data = picture(8, 8)
    first = threading.Thread(target=asked, args=(f"{address}/predict", data))
    first.start()
    while not begun:
        time.sleep(0.01)
    for _ in range(5):
        sent(address, data).close()
    time.sleep(0.5)  # until the server has seen all that
    last = threading.Thread(target=lambda: status.append(asked(f"{address}/predict", data)[0]))
    last.start()
    time.sleep(0.2)
    begin.set()
    for client in (first, last):
        client.join(PATIENCE)
    assert status == [200] and len(begun) == 2


def test_who_hangs_up_is_no_error(served, capfd):
    address, data = served(per_minute=0), picture(8, 8)[1]
    for _ in range(3):
        sent(address, data[:9], len(data)).close()
        sent(address, data).close()
    assert asked(f"{address}/predict", data)[0] == 200
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A folder with a trained network, of a trial."""
    folder = tmp_path_factory.mktemp("trial")
    preset = ["--preset=toy", "--set=train.supervision=full", "--set=train.iters=1", "--set=train.batch=2"]
    small = ["--set=train.crop=32", "--set=train.data_workers=0", "--set=train.val_interval=0"]
    assert wsss(folder, "prepare", "toy", "--images=4", "--val=2", "--size=32").returncode == 0
    assert wsss(folder, "train", *preset, *small, "--limit=3").returncode == 0
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.mark.parametrize(
    ("number", "code", "last"),
    [
        (signal.SIGINT, 0, "stopped; 1 photograph served"),
        (signal.SIGTERM, 0, "stopped; 1 photograph served"),
        (signal.SIGUSR1, 75, "hint: run the same command again to go on"),
    ],
)
def test_who_stops_it_is_told_how_many_photographs_it_has_served(trial, tmp_path, number, code, last):
    log = tmp_path / "address.txt"
    with log.open("w") as file:
        process = start(tmp_path, "serve", str(trial), "--port=0", stdout=file)
    until = time.monotonic() + PATIENCE
    while not (address := log.read_text().strip()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    assert asked(f"{address}/predict", picture(32, 32)[1])[0] == 200
    assert asked(f"{address}/predict", b"no photograph")[0] == 400
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.splitlines()[-1]) == (code, last)
    assert "Traceback" not in said and said.count(f"{trial} was trained with limit 3: not a result\n") == 1


def test_a_server_that_ends_by_itself_is_no_success(trial, tmp_path, monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    with pytest.raises(ResourceError, match="ended by itself; 0 photographs served"):
        serve_command.serve(trial, port=0)


def test_a_form_and_an_answer_that_is_not_known_are_refused_as_what_they_are(served):
    address, (_, data) = served(), picture(30, 40)
    code, body, _ = asked(f"{address}/predict?as=maks", data)
    assert (code, json.loads(body)["error"]) == (400, "there is no as=maks")
    form = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    code, body, _ = asked(f"{address}/predict", form, "multipart/form-data; boundary=x")
    assert (code, json.loads(body)["error"]) == (400, "a form was sent, not a photograph")
    assert "--data-binary" in json.loads(body)["hint"]
    assert asked(f"{address}/predict?as=json", data)[0] == 200
    for fields, words in (
        ("mask=1", "there is no field 'mask' in the address"),
        ("as=mask&ms_flip=1", "there is no field 'ms_flip' in the address"),
        ("as=mask&as=overlay", "the address has as= more than once"),
    ):
        code, body, _ = asked(f"{address}/predict?{fields}", data)
        assert (code, json.loads(body)["error"]) == (400, words)
    code, body, _ = asked(f"{address}/predict", gzip.compress(data), **{"Content-Encoding": "gzip"})
    assert (code, json.loads(body)["error"]) == (400, "Content-Encoding gzip is not read")
