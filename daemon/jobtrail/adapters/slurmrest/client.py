"""What slurmctld and slurmdbd say, through slurmrestd: the ports SlurmController and SlurmAccounting."""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial

from jobtrail.adapters.slurmrest.accounting import UidOf, slurmdb_record
from jobtrail.adapters.slurmrest.auth import TokenSource
from jobtrail.adapters.slurmrest.conversation import Conversation
from jobtrail.adapters.slurmrest.exchange import MAX_ANSWER_BYTES, AnswerTooLarge
from jobtrail.adapters.slurmrest.jobs import public_id, slurmctld_record
from jobtrail.adapters.slurmrest.nodes import node_record
from jobtrail.adapters.slurmrest.pacing import Pace, Wait
from jobtrail.adapters.slurmrest.settings import RestSettings
from jobtrail.core.ports import Clock
from jobtrail.domain.errors import SlurmAnswerInvalid
from jobtrail.domain.slurm import NodeRecord, SlurmAnswer, Unreadable

JOBS_PER_QUESTION = 500  # numbers in one question to slurmdb: at most 6.5 kB of its address
# From v0.0.40 on slurmdb gives a job's last run only, unless asked; before, the parameter is an unknown one.
ALL_RUNS_ON_REQUEST_SINCE = 40


def uid_of_user(name: str) -> int | None:
    """The uid of a user this machine knows. Blocking: the name service can be a remote one."""
    try:
        return _known_uid(name)
    except (KeyError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _known_uid(name: str) -> int:
    # What it raises is not cached: a name service can be away for a while.
    return pwd.getpwnam(name).pw_uid


class SlurmRest:
    """SlurmController and SlurmAccounting on slurmrestd, data versions v0.0.36 to v0.0.43."""

    def __init__(
        self,
        settings: RestSettings,
        *,
        clock: Clock,
        wait: Wait = asyncio.sleep,
        uid_of: UidOf = uid_of_user,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._uid_of = uid_of
        self._tokens = TokenSource(user=settings.user, token=settings.token, token_file=settings.token_file)
        self._conversation = Conversation(settings, self._tokens, clock=clock, max_answer_bytes=max_answer_bytes)
        pace = partial(Pace, settings.poll_seconds, clock=clock, wait=wait)
        self._jobs_pace, self._nodes_pace, self._accounting_pace = pace(), pace(), pace()
        self._node_notice: str | None = None

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: RestSettings, *, clock: Clock) -> AsyncIterator[SlurmRest]:
        """A client for as long as the context lasts; `notices` already tells of the token's file.

        Nothing is asked yet, so slurmrestd need not be up.
        """
        client = cls(settings, clock=clock)
        try:
            await asyncio.to_thread(client._tokens.look)
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._conversation.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for people: what is wrong with the set-up and does not stop the work. Never holds the token."""
        return tuple(notice for notice in (self._tokens.notice, self._node_notice) if notice is not None)

    async def current_jobs(self) -> SlurmAnswer:
        """The newest run of every job slurmctld holds."""
        async with self._jobs_pace.turn():
            return await self._controller_jobs("jobs")

    async def job(self, number: int) -> SlurmAnswer:
        """The newest run of one job; no records when slurmctld does not know it."""
        # For the id of an array or of a heterogeneous job slurmctld answers with all tasks or components.
        return _only(await self._controller_jobs(f"job/{number}"), {number})

    async def nodes(self) -> Sequence[NodeRecord]:
        """Every node of the cluster that can be understood; `notices` tells of the others."""
        async with self._nodes_pace.turn():
            _, envelope = await self._conversation.ask("slurm", "nodes")
            found, problems = await asyncio.to_thread(envelope.taken_nodes, node_record)
        if problems and not found:
            raise problems[0]
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        self._node_notice = f"a node of slurmctld's answer cannot be read: {problems[0]}{others}" if problems else None
        return found

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        """All runs of these jobs that were not over before `since`. SlurmHasNone: this slurmrestd has no slurmdb."""
        wanted = sorted(set(numbers))
        questions = [wanted[place : place + JOBS_PER_QUESTION] for place in range(0, len(wanted), JOBS_PER_QUESTION)]
        answers = []
        while questions:
            question = questions.pop(0)
            try:
                async with self._accounting_pace.turn():
                    answers.append(await self._runs_of(question))
            except AnswerTooLarge as problem:
                # Jobs of many steps: ask for fewer at a time, and do without the one that is too much by itself.
                half = len(question) // 2
                if half:
                    questions[:0] = [question[:half], question[half:]]
                else:
                    answers.append(_without(question[0], problem))
        records = [record for answer in answers for record in answer.records]
        return SlurmAnswer(
            records=tuple(record for record in records if record.end_time is None or record.end_time >= since),
            unreadable=tuple(one for answer in answers for one in answer.unreadable),
        )

    async def _controller_jobs(self, question: str) -> SlurmAnswer:
        _, envelope = await self._conversation.ask("slurm", question)
        return await asyncio.to_thread(envelope.taken_jobs, slurmctld_record)

    async def _runs_of(self, numbers: Sequence[int]) -> SlurmAnswer:
        # Not with start_time: slurmdbd then compares with the time of the question too, and leaves out what became
        # eligible in the same second. For an array's id it answers with all tasks.
        parameters = {"step": ",".join(map(str, numbers))}
        if await self._conversation.version() >= ALL_RUNS_ON_REQUEST_SINCE:
            parameters["show_duplicates"] = "true"
        version, envelope = await self._conversation.ask("slurmdb", "jobs", parameters)
        decode = partial(slurmdb_record, version=version, uid_of=self._uid_of)
        return _only(await asyncio.to_thread(envelope.taken_jobs, decode), set(numbers))


def _without(number: int, problem: SlurmAnswerInvalid) -> SlurmAnswer:
    """The answer about a job of which nothing can be read."""
    lost = Unreadable(path=problem.path, reason=problem.reason, job_id=public_id(number))
    return SlurmAnswer(unreadable=(lost,))


def _only(answer: SlurmAnswer, numbers: set[int]) -> SlurmAnswer:
    """The records of the jobs that were asked for."""
    wanted = {f"slurm-{number}" for number in numbers}
    return SlurmAnswer(
        records=tuple(record for record in answer.records if record.job_id in wanted),
        unreadable=tuple(one for one in answer.unreadable if one.job_id is None or one.job_id in wanted),
    )
