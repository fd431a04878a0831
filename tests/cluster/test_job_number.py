"""The number of a job in what sbatch prints, among what a site prints."""

import pytest

from wsss_cli.stages.submit import job_number


@pytest.mark.parametrize(
    "said",
    [
        "Submitted batch job 42\n",
        b"Submitted batch job 42 on cluster c1\n",
        "Your last job 7 ended; see news\nSubmitted batch job 42\nand more of job 9\n",
        "sbatch: INFO: Note that 128 GB per node\r\nSubmitted batch job 42",
    ],
)
def test_the_line_of_sbatch_itself_has_the_number(said):
    assert job_number(said) == "42"


@pytest.mark.parametrize("said", ["", "sbatch: error: job 7 is yours\n"])
def test_no_such_line_is_no_job(said):
    with pytest.raises(ValueError, match="sbatch named no job, it said"):
        job_number(said)
