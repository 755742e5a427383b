"""POST /v1/jobs/{id}/look: on which sockets, for whom, and what is answered."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobtrail.core.ports import PokeAnswer
from tests.adapters.test_http_pokes import poke, poke_as
from tests.adapters.test_http_senders import OVERFLOW_UID, STRANGER_UID, reachable  # noqa: F401 - a fixture
from tests.served_api import served

LOOK = "/v1/jobs/slurm-17/look"


async def test_a_look_is_its_senders_whoever_that_is(reachable: Path) -> None:  # noqa: F811
    """On the socket open to all; for whom they speak is the kernel's word."""
    async with served(reachable) as api:
        answer = await poke_as(STRANGER_UID, api, b"", LOOK)
        assert answer.status == 200
        told = answer.json()
        assert (told["job_id"], told["looked"]) == ("slurm-17", True)
        assert abs(datetime.fromisoformat(told["time"]) - datetime.now(UTC)) < timedelta(seconds=20)
        assert (await poke_as(OVERFLOW_UID, api, b"", LOOK)).status == 403
    assert api.looks.asked == [("slurm-17", STRANGER_UID)]
    assert (api.pokes.asked, api.intake.events) == ([], [])


@pytest.mark.parametrize(("said", "job_id"), [("17", "slurm-17"), ("slurm-17", "slurm-17"), ("local-5", "local-5")])
async def test_jobs_go_by_their_ids_on_both_unix_sockets(tmp_path: Path, said: str, job_id: str) -> None:
    """On the hooks' socket for nodes without Slurm, where there is no other."""
    async with served(tmp_path) as api:
        assert (await poke(api, f"/v1/jobs/{said}/look")).json()["job_id"] == job_id
        assert (await api.request("POST", f"/v1/jobs/{said}/look")).status == 200
        assert (await api.request("POST", f"/v1/jobs/{said}/look", tcp=True)).status == 403
        assert (await poke(api, f"/v1/jobs/{said}/look", method="GET")).status == 405
    assert [asked for asked, _ in api.looks.asked] == [job_id, job_id]


@pytest.mark.parametrize("path", ["/v1/jobs/0/look", "/v1/jobs/slurm-x/look", "/v1/jobs/17/look?run=1"])
async def test_what_names_no_job_is_refused(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as api:
        answer = await poke(api, path)
        assert (answer.status, answer.json()["error"]) == (400, "validation_error")
    assert api.looks.asked == []


@pytest.mark.parametrize(
    ("outcome", "status"), [(PokeAnswer.TOO_SOON, 429), (PokeAnswer.BUSY, 503), (PokeAnswer.NOT_YOURS, 403)]
)
async def test_without_a_look_it_says_why(tmp_path: Path, outcome: PokeAnswer, status: int) -> None:
    async with served(tmp_path) as api:
        api.looks.answer = outcome
        answer = await poke(api, LOOK)
        assert answer.status == status
        assert ("retry-after" in answer.headers) == (status != 403)
