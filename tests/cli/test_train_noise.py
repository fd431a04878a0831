"""`wsss train` with methods against noise, through the real process; there is no data set."""

import json


def train(wsss, *settings):
    options = [part for each in settings for part in ("--set", f"train.{each}")]
    return wsss("train", "--dry-run", "--json", "--preset", "toy", *options)


def test_methods_are_chosen_by_settings(wsss):
    done = train(wsss, 'loss=[{kind="cross-entropy", balance="fg-bg"}]', "noise.teacher.decay=0.9")
    assert [problem["message"] for problem in json.loads(done.stdout)["problems"]] == [
        "no data set at data/toy (it has no dataset.json)"
    ]
    settings = json.loads(done.stdout)["preset"]["train"]
    assert (settings["loss"][0]["balance"], settings["noise"]["teacher"]["decay"]) == ("fg-bg", 0.9)
    assert settings["noise"]["update"] is None


def test_what_does_not_go_together_ends_with_the_reason(wsss):
    done = train(wsss, "supervision=full", "noise.confidence=weight")
    assert done.returncode == 2
    reason = "noise.confidence with supervision 'full': true masks have no confidence maps"
    assert reason in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr
