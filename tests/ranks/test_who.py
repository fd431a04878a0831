import pytest

from wsss_cli.errors import UsageError
from wsss_cli.ranks.who import Ranks, first_node, meeting_point, ranks_of


def test_without_a_launcher_there_is_one_rank():
    assert ranks_of({}) == Ranks(0, 1, 0, 1)


def test_torchrun_says_who_is_who():
    said = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert ranks_of(said | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}) == Ranks(5, 8, 1, 4)


def test_srun_says_who_is_who():
    said = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1"}
    assert ranks_of(said | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}) == Ranks(5, 7, 1, 4)


def test_a_batch_script_without_srun_is_one_process_though_slurm_has_given_it_many_tasks():
    assert ranks_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}) == Ranks()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one'"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK=''"),
        ({"RANK": "0", "WORLD_SIZE": "x"}, "WORLD_SIZE='x'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4(x2)"}, "LOCAL_WORLD_SIZE='4"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2 contradict"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "contradict"),
    ],
)
def test_what_makes_no_sense_is_refused(said, fault):
    with pytest.raises(UsageError, match=fault):
        ranks_of(said)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_parts_are_neighbours_that_make_up_all_and_differ_by_one_at_most(world, count):
    parts = [Ranks(rank, world).part(count) for rank in range(world)]
    assert [place for part in parts for place in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("gpu[03-05,9],cpu1", "gpu03"), ("a-1,b[2-3]", "a-1"), ("n[1,4]", "n1"), ("", "")],
)
def test_the_first_machine_of_slurms_list(nodes, first):
    assert first_node(nodes) == first


def test_ranks_meet_at_the_first_machine_on_a_port_of_their_job():
    place = meeting_point({"SLURM_STEP_NODELIST": "gpu[03-05]", "SLURM_JOB_ID": "1234567"})
    assert place == {"MASTER_ADDR": "gpu03", "MASTER_PORT": str(29_500 + 4567)}
    assert meeting_point({"MASTER_ADDR": "", "MASTER_PORT": ""}) == {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert meeting_point({"MASTER_ADDR": "host", "MASTER_PORT": "1"}) == {"MASTER_ADDR": "host", "MASTER_PORT": "1"}


@pytest.mark.parametrize("said", [{"MASTER_PORT": "abc"}, {"MASTER_PORT": "70000"}, {"MASTER_PORT": "0"}])
def test_a_port_that_is_none_is_refused_by_its_name(said):
    with pytest.raises(UsageError, match="MASTER_PORT="):
        meeting_point(said)


def test_a_job_id_that_is_none_is_refused_by_its_name():
    with pytest.raises(UsageError, match="SLURM_JOB_ID="):
        meeting_point({"SLURM_JOB_ID": "x"})
