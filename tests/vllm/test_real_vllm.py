"""The shipped recipes with the real vLLM, as jobs of a user on a real Slurm cluster: from the command to the record."""

from __future__ import annotations

import json
import statistics

import pytest

from jobtrail.adapters.benchmark_files import read_results
from tests.vllm.benched import Benched, Run

pytestmark = [pytest.mark.slurm, pytest.mark.vllm]

SHORT = {"num_prompts": 12, "repeats": 2, "workload__input_len": 32, "workload__output_len": 16}


@pytest.fixture(scope="module")
def served(benched: Benched) -> Run:
    return benched.run_recipe("vllm-serve-small", **SHORT)


def test_a_benchmark_stands_in_the_record_of_its_job(benched: Benched, served: Run) -> None:
    """The summary row has the job, its user, vLLM's version as the server says it, and the files' throughput."""
    row = benched.settled(served)
    assert (row["status"], row["job_id"], row["link_state"]) == ("ok", f"slurm-{served.slurm_id}", "linked")
    assert (row["user_name"], row["account"]) == ("jt-alice", "physics")
    assert (row["recipe"], row["mode"], row["tool"], row["tool_version"]) == (
        "vllm-serve-small",
        "serve",
        "vllm",
        "0.32.0",
    )
    files = [json.loads(path.read_bytes()) for path in served.results]
    assert len(files) == 2
    assert row["output_tokens_per_second"] == pytest.approx(statistics.median(f["output_throughput"] for f in files))
    assert row["output_tokens_per_second"] > 0
