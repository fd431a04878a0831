"""Which jobs a plan becomes, and what is printed of them; nothing is run."""

import json
import shutil
import sys

import pytest

from wsss_cli.cli.app import app
from wsss_cli.cli.submit import _extra, _extras, _minutes, _without_until
from wsss_cli.engine.shards import Shard
from wsss_cli.errors import ResourceError, UsageError
from wsss_cli.stages import submit, task_work
from wsss_cli.stages.jobs import Resources, Task, jobs_of, names, sbatch_options, script, until
from wsss_cli.stages.plan import Step, in_order


@pytest.fixture
def steps(tmp_path):
    """A plan with both affinity networks and two rounds, of which the classifier is done."""

    def step(stage, number=1, *reads, done=False):
        return Step(stage, tmp_path / f"{stage}{number}", f"{stage}{number}", reads, done)

    classifier = step("classifier", done=True)
    cam = step("cam", 1, classifier)
    irn, psa = step("irn", 1, cam), step("psa", 1, cam)
    pseudo = step("pseudo", 1, cam, irn, psa)
    train = step("train", 1, pseudo)
    relabel = step("relabel", 1, train)
    again = step("train", 2, relabel)
    return in_order([cam, pseudo, train, relabel, again, Step("eval", again.path, "", (again,))])


def test_each_step_that_is_not_done_is_a_job_after_those_that_it_reads(steps):
    jobs = jobs_of(steps, ["--preset", "p"], Resources(gpus=4, shards=3))
    assert {job.name: job.after for job in jobs} == {
        "cam": (),
        "irn": ("cam",),
        "psa": ("cam",),
        "pseudo": ("cam", "irn", "psa"),
        "train": ("pseudo",),
        "relabel": ("train",),
        "train-2": ("relabel",),
        "eval": ("train-2",),
    }
    assert {job.name: (len(job.tasks), job.gpus) for job in jobs} == {
        **dict.fromkeys(("irn", "psa", "train", "train-2"), (1, 4)),
        **dict.fromkeys(("cam", "pseudo"), (3, 1)),
        **dict.fromkeys(("relabel", "eval"), (1, 1)),
    }
    by_name = {job.name: job for job in jobs}
    assert by_name["train-2"].tasks[0].arguments == ("run", "--preset", "p", "--until", "train-2", "--gpus", "4")
    assert by_name["cam"].tasks[1].arguments == ("cam", "--preset", "p", "--shard", "2/3")


def test_without_gpus_and_shards_a_job_is_one_process(steps):
    jobs = jobs_of(steps, [], Resources(gpus=0))
    assert {(len(job.tasks), job.gpus) for job in jobs} == {(1, 0)}
    assert all("--gpus" not in job.tasks[0].arguments for job in jobs)


def test_a_step_is_named_by_its_stage_and_round_whatever_is_done(steps):
    order = ["classifier", "cam", "irn", "psa", "pseudo", "train", "relabel", "train-2", "eval"]
    assert list(names(steps)) == order
    assert [step.stage for step in until(steps, "psa") if not step.done] == ["cam", "psa"]  # not the other network
    assert [step.stage for step in until(steps, "train-2")][-3:] == ["train", "relabel", "train"]
    with pytest.raises(
        UsageError, match=r"--until recam: this preset has no such step \(choose of classifier, cam, irn"
    ):
        until(steps, "recam")


def test_a_script_says_what_a_job_asks_for(steps):
    resources = Resources(2, 3, 90, 8, "64G", "gpu", "lab", {"constraint": "a100", "exclusive": ""})
    cam, *_, train, _, _, last = jobs_of(steps, ["--set", "a=[1, 2]"], resources)
    text = script(cam, resources)
    for line in (
        "--time=90",
        "--gpus-per-node=1",
        "--cpus-per-task=8",
        "--mem=64G",
        "--partition=gpu",
        "--account=lab",
    ):
        assert f"#SBATCH {line}\n" in text
    for line in ("--constraint=a100", "--exclusive", "--requeue", "--array=0-2", "--signal=USR2@120"):
        assert f"#SBATCH {line}\n" in text
    assert "dependency" not in text
    assert text.endswith("srun wsss cam --set 'a=[1, 2]' --shard $((SLURM_ARRAY_TASK_ID + 1))/3")
    assert "#SBATCH --cpus-per-task=16\n" in script(train, resources)
    options = sbatch_options(last, resources, ["7", "8"])
    assert (options["dependency"], options["kill-on-invalid-dep"]) == ("afterok:7:8", "yes")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:01", 91), ("2:30:00", 150), ("1-0", 1440), ("1-2:30", 1590), ("1-02:30:30", 1591)],
)
def test_times_are_those_of_slurm(text, minutes):
    assert _minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "x", "1:2:3:4", "-5", "1-", "²", "0:00:00"])
def test_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--time"):
        _minutes(text)


def test_further_options_of_sbatch():
    assert _extra("constraint=a100") == ("constraint", "a100")
    assert _extra("--exclusive") == ("exclusive", "")
    for text in ("", "=a", "a b=c", "comment=a\nb", "time=3", "array=1-2"):
        with pytest.raises(UsageError, match="--extra"):
            _extra(text)
    with pytest.raises(UsageError, match="--extra comment=my job: its value has a blank"):
        _extra("comment=my job")
    with pytest.raises(UsageError, match="--extra qos: given twice"):
        _extras(["qos=high", "--qos=low"])


def test_the_step_of_a_command_is_replaced_by_that_of_each_job():
    assert _without_until(["-p", "x", "--until", "cam", "--set", "a=1", "--until=irn"]) == ["-p", "x", "--set", "a=1"]


def test_a_job_that_lost_images_holds_nothing_back_and_one_that_did_nothing_does(tmp_path, monkeypatch):
    task = Task(("cam",), "cam", tmp_path / "cam", Shard(1, 2))
    assert not task.done
    assert not task_work.ended_well(task, 3)
    monkeypatch.setattr(Task, "done", True)
    assert task_work.ended_well(task, 3)
    assert not task_work.ended_well(task, 5)


def test_a_job_is_queued_again_a_hundred_times_at_most(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "100")
    with pytest.raises(ResourceError, match="job 7 was stopped 100 times"):
        task_work.requeue()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match=r"Slurm does not queue it again: .*scontrol"):
        task_work.requeue()


def test_submitit_or_slurm_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"submitit, which is not installed \(pip install 'wsss\[slurm\]'"):
        submit.check_slurm()
    monkeypatch.setitem(sys.modules, "submitit", sys)
    monkeypatch.setattr(shutil, "which", lambda command: None if command == "srun" else command)
    with pytest.raises(ResourceError, match="there is no Slurm here: srun is not on the PATH"):
        submit.check_slurm()


def test_jobs_that_slurm_took_before_it_refused_one_are_named(monkeypatch, steps, tmp_path):
    def hand_over(job, resources, logs, after):
        if job.name == "pseudo":
            raise RuntimeError("sbatch: error: Batch job submission failed: Invalid partition\n")
        return submit.Submitted(job.name, str(len(after) + 5), "log")

    monkeypatch.setattr(submit, "_submit", hand_over)
    told = []
    with pytest.raises(ResourceError, match=r"job pseudo: .*Invalid partition .*scancel 5 6 6"):
        submit.submit(jobs_of(steps, [], Resources()), Resources(), tmp_path, told.append)
    assert [job.name for job in told] == ["cam", "irn", "psa"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data/toy"
    (folder / "splits").mkdir(parents=True)
    (folder / "dataset.json").write_text('{"classes": ["background", "cat"]}')
    (folder / "splits/train.csv").write_text("id,image,mask,labels\na,a.png,a.png,cat\n")
    (folder / "splits/val.csv").write_text("id,image,mask,labels\na,a.png,a.png,cat\n")
    (folder / "a.png").write_bytes(b"looked at by nobody")
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_prints_the_jobs_and_submits_nothing(data, capsys, tmp_path):
    command = ["submit", "--gpus=2", "--shards=8", "--dry-run", "--json", "--", "run", "-p", "toy", "--until", "pseudo"]
    assert not app(command, standalone_mode=False)
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [(job["name"], job["tasks"], job["after"]) for job in jobs] == [
        ("classifier", 1, []),
        ("cam", 8, ["classifier"]),
        ("pseudo", 8, ["cam"]),
    ]
    assert jobs[0]["script"].endswith("srun wsss run -p toy --until classifier --gpus 2")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["cam", "-p", "toy"], "only run is submitted"),
        (["run", "-p", "toy", "--gpus", "2"], "--gpus is an option of submit"),
        (["run", "-p", "toy", "--dry-run"], "--dry-run is an option of submit"),
        (["run", "-p", "toy", "--until", "irn"], "this preset has no such step"),
    ],
)
def test_a_command_that_cannot_be_submitted_is_refused(data, command, message):
    with pytest.raises(UsageError, match=message):
        app(["submit", "--dry-run", "--", *command], standalone_mode=False)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--partition", "gpu long", "--partition 'gpu long': this is no name"),
        ("--partition", "gpu\n#SBATCH --exclusive", "--partition .*: this is no name"),
        ("--account", " ", "--account ' ': this is no name"),
        ("--mem", "64 GB", "--mem '64 GB': this is no amount of memory"),
        ("--mem", "-5G", "--mem '-5G': this is no amount of memory"),
    ],
)
def test_what_would_end_the_options_of_a_script_early_is_refused(data, option, value, message):
    with pytest.raises(UsageError, match=message):
        app(["submit", "--dry-run", option, value, "--", "run", "-p", "toy"], standalone_mode=False)


def test_several_partitions_and_names_with_signs_are_taken(data, capsys):
    command = ["submit", "--dry-run", "--partition=gpu,gpu-long_2", "--account=a.b@c", "--mem=0", "--", "run", "-ptoy"]
    assert not app(command, standalone_mode=False)
    text = capsys.readouterr().out
    assert "--partition=gpu,gpu-long_2\n" in text
    assert "--account=a.b@c\n" in text


def test_a_path_that_looks_like_arithmetic_is_quoted_in_a_script(steps):
    job = jobs_of(steps, ["--runs", "$((x))"], Resources(shards=2))[0]
    assert "--runs '$((x))' --shard $((SLURM_ARRAY_TASK_ID + 1))/2" in script(job, Resources(shards=2))
