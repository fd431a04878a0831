"""A stand-in for Slurm on one machine: sbatch, srun, scontrol, scancel and squeue as executables, and what runs jobs.

sbatch queues; `Cluster.run` runs what is queued, one job after another. Known are --array, --dependency=afterok,
--kill-on-invalid-dep, --output, --error, --signal, --parsable, --ntasks and --requeue; SLURM_* variables are set.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 240
COMMANDS = ("sbatch", "srun", "scontrol", "scancel", "squeue")


class Cluster:
    """Jobs of a folder.

    Attributes:
        bin: folder of the executables.
        log: ids of jobs in the order in which they ran, once for each time.
    """

    def __init__(self, folder):
        self.state, self.bin, self.log = folder / "slurm", folder / "bin", []
        self.state.mkdir()
        self.bin.mkdir()
        for name in COMMANDS:
            file = self.bin / name
            file.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} {name} "$@"\n')
            file.chmod(0o755)

    def variables(self):
        """What a command needs to find it."""
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", "SLURM_STANDIN": str(self.state)}

    def jobs(self):
        """Queued and finished jobs by id."""
        return {int(file.stem): json.loads(file.read_text()) for file in sorted(self.state.glob("*.json"))}

    def states(self):
        """{name: state}; an array has one state where all of its tasks have."""
        states = {}
        for job in self.jobs().values():
            states.setdefault(job["name"], set()).add(job["state"])
        return {name: " ".join(sorted(of)) for name, of in states.items()}

    def run(self, watch=lambda job, batch: None):
        """Run what is queued until nothing is left that can run.

        Args:
            watch: called ten times a second with the job that runs and its process.
        """
        while (job := self._next()) is not None:
            self.log.append(job["id"])
            self._run(job, watch)

    def _next(self):
        jobs = self.jobs()
        for job in jobs.values():
            if job["state"] != "PENDING":
                continue
            states = {jobs[other]["state"] for other in jobs if jobs[other]["array"] in job["after"]}
            if states <= {"COMPLETED"}:
                return job
            if states & {"FAILED", "CANCELLED"} and job["options"].get("kill-on-invalid-dep") == "yes":
                self._save(job, "CANCELLED")
                return self._next()
        return None

    def _save(self, job, state):
        job["state"] = state
        write(self.state, job)

    def _run(self, job, watch):
        self._save(job, "RUNNING")
        options, environment = job["options"], dict(job["environment"])
        environment |= {"SLURM_JOB_ID": str(job["id"]), "SLURM_JOB_NAME": job["name"]}
        environment["SLURM_NTASKS"] = options.get("ntasks", "1")
        environment |= {"SLURM_RESTART_COUNT": str(job["restarts"])} if job["restarts"] else {}
        if job["task"] is not None:
            tasks = [other["task"] for other in self.jobs().values() if other["array"] == job["array"]]
            environment |= {"SLURM_ARRAY_JOB_ID": str(job["array"]), "SLURM_ARRAY_TASK_ID": str(job["task"])}
            environment |= {"SLURM_ARRAY_TASK_COUNT": str(len(tasks)), "SLURM_ARRAY_TASK_MIN": str(min(tasks))}
            environment["SLURM_ARRAY_TASK_MAX"] = str(max(tasks))
        default = "slurm-%A_%a.out" if job["task"] is not None else "slurm-%j.out"
        out = Path(job["folder"]) / pattern(options.get("output", default), environment)
        with out.open("a") as file:
            batch = subprocess.Popen(
                ["bash", job["script"], *job["arguments"]],
                cwd=job["folder"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            until, mark = time.monotonic() + PATIENCE_S, self.state / f"{job['id']}.requeue"
            while batch.poll() is None:
                watch(job, batch)
                time.sleep(0.1)
                if time.monotonic() > until:
                    batch.kill()
        again = mark.exists()
        mark.unlink(missing_ok=True)
        job["restarts"] += again
        job["code"] = batch.returncode
        self._save(job, "PENDING" if again else "FAILED" if batch.returncode else "COMPLETED")

    def signal_before_the_end(self, job, batch):
        """Send what --signal asks for before a job's time is over: to the script alone, or to all but the script."""
        to, _, rest = job["options"]["signal"].rpartition(":")
        number = getattr(signal, f"SIG{rest.split('@')[0]}")
        for pid in [batch.pid] if to == "B" else below(batch.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def below(pid):
    """Processes that a process has started, with srun's own left out: it has nothing to save."""
    listed = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    pids, descendants = {pid}, []
    while level := [row for row in rows if int(row[1]) in pids]:
        descendants += [int(row[0]) for row in level if f"{Path(__file__).name} srun" not in row[2]]
        pids = {int(row[0]) for row in level}
    return descendants


def pattern(name, environment):
    for letter, variable in (("j", "JOB_ID"), ("A", "ARRAY_JOB_ID"), ("a", "ARRAY_TASK_ID"), ("t", "PROCID")):
        name = name.replace(f"%{letter}", environment.get(f"SLURM_{variable}", "0"))
    return name


def write(state, job):
    file = state / f"{job['id']:06d}.json"
    file.with_suffix(".part").write_text(json.dumps(job))
    file.with_suffix(".part").rename(file)


# -- the executables ---------------------------------------------------------------------------------------------------


def split_options(words):
    """({option: value}, the rest) of a command line."""
    options, words = {"": ""}, list(words)
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).lstrip("-").partition("=")
        takes = name in ("output", "error", "ntasks", "dependency", "array", "signal", "time", "gpus", "partition")
        options[name] = value if equals or not takes else words.pop(0)
    return options, words


def sbatch(state, words):
    given, (script, *arguments) = split_options(words)
    text = Path(script).read_text()
    lines = re.findall(r"^#SBATCH (.+)$", text, re.MULTILINE)
    options = split_options([word for line in lines for word in line.split(" #")[0].split()])[0] | given
    array = options.get("array", "").split("%")[0]
    tasks = []
    for part in filter(None, array.split(",")):
        first, _, last = part.partition("-")
        tasks += range(int(first), int(last or first) + 1)
    number = max([int(file.stem) for file in state.glob("*.json")], default=100) + 1
    spooled = state / f"{number}.sh"
    spooled.write_text(text)
    after = options.get("dependency", "")
    if after and not re.fullmatch(r"afterok(:\d+)+", after):
        sys.exit(f"sbatch: error: Job dependency problem: {after}")
    for offset, task in enumerate(tasks or [None]):
        job = {"id": number + offset, "array": number, "task": task, "state": "PENDING", "restarts": 0}
        job |= {"name": options.get("job-name", Path(script).name), "options": options, "script": str(spooled)}
        job |= {
            "after": [int(each) for each in after.split(":")[1:]],
            "arguments": arguments,
            "folder": str(Path.cwd()),
        }
        write(state, job | {"environment": dict(os.environ)})
    print(number if "parsable" in options else f"Submitted batch job {number}")


def srun(state, words):
    options, command = split_options(words)
    count = int(options.get("ntasks", os.environ["SLURM_NTASKS"]))
    step = {"SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_TASKS_PER_NODE": str(count), "SLURM_NTASKS": str(count)}
    processes = []
    for rank in range(count):
        environment = {**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        with Path(pattern(options.get("output", "/dev/stdout"), environment)).open("a") as out:
            stream = out if "output" in options else None
            processes.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
    codes = [process.wait() for process in processes]
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))


def scontrol(state, words):
    verb, job = words
    file = state / f"{int(job):06d}.json"
    if verb != "requeue" or not file.is_file():
        sys.exit(f"scontrol: error: Invalid job id specified: {words}")
    if "requeue" not in json.loads(file.read_text())["options"]:
        sys.exit("Requested operation is presently disabled")
    (state / f"{int(job)}.requeue").touch()


def scancel(state, words):
    _, ids = split_options(words)
    for file in state.glob("*.json"):
        job = json.loads(file.read_text())
        if str(job["array"]) in ids and job["state"] == "PENDING":
            write(state, job | {"state": "CANCELLED"})


def squeue(state, words):
    for file in sorted(state.glob("*.json")):
        job = json.loads(file.read_text())
        if job["state"] in ("PENDING", "RUNNING"):
            print(job["id"], job["name"], job["state"])


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["SLURM_STANDIN"]), sys.argv[2:])
