"""Job ids as people write them."""

import pytest

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.job_ids import JobName, parse_job_id


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("123", JobName("slurm-123")),
        ("slurm-123", JobName("slurm-123")),
        ("local-4", JobName("local-4")),
        ("5_0", JobName("slurm-5", 0)),
        ("slurm-5_17", JobName("slurm-5", 17)),
    ],
)
def test_each_form_names_a_job(text: str, named: JobName) -> None:
    assert parse_job_id(text) == named


@pytest.mark.parametrize(
    "text",
    ["", "0", "slurm-", "local-4_1", "5_", "_5", "5_x", "5_1_2", "5.batch", "²", "\u0667", "7\n", "5_[1-3]", " 7"],
)
def test_what_is_no_job_id_is_answered_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidEvent, match=r"slurm-N, local-N, N for slurm-N, or N_M"):
        parse_job_id(text)
