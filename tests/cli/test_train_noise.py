"""`wsss train` with methods against noise, through the real process; no data is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def train(folder, *settings):
    given = [part for each in settings for part in ("--set", f"train.{each}")]
    return subprocess.run(
        [sys.executable, "-m", "wsss_cli", "train", "--dry-run", "--json", "--preset", "toy", *given],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=100,
    )


def test_methods_are_chosen_by_settings(tmp_path):
    done = train(tmp_path, "noise.balance=fg-bg", "noise.teacher.decay=0.9")
    assert done.returncode == 0, done.stderr
    noise = json.loads(done.stdout)["preset"]["train"]["noise"]
    assert (noise["balance"], noise["teacher"]["decay"], noise["update"]) == ("fg-bg", 0.9, None)


def test_what_does_not_go_together_ends_with_the_reason(tmp_path):
    done = train(tmp_path, "supervision=full", "noise.confidence=weight")
    assert done.returncode == 2
    reason = "noise.confidence with supervision 'full': true masks have no confidence maps"
    assert reason in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr
