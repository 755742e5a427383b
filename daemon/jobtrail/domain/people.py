"""People's word on a job, folded from their events so that the order of arrival makes no difference.

Of several creations of one job the first by its stamp counts, as a whole. Of each field the amendment with the latest
stamp counts, whatever the creation said. A withdrawal is for ever.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jobtrail.domain.claims import REMARKS, Claims, facts_of, is_manual, said_fields
from jobtrail.domain.events import PERSONS_KINDS, Event, EventKind
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.registers import OutcomeRegister, Stamp
from jobtrail.domain.states import State
from jobtrail.domain.verdicts import Ruling, rule

_FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
_OVER = frozenset({*_FINAL, State.ENDED})
PERSON = "person"  # whose word a state and a verdict rest on


class Signed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That somebody said something: when, who by their own word, and who sent it by the daemon's."""

    stamp: Stamp
    person: str | None = None
    sent_by: str | None = None


class Creation(msgspec.Struct, frozen=True, kw_only=True):
    """The making of a manual job. Who made it is on the trail alone, where the law's order can erase it."""

    stamp: Stamp
    claims: Claims


class Amended(msgspec.Struct, frozen=True, array_like=True):
    """The last word on one field."""

    stamp: Stamp
    value: str | int | tuple[str, ...] | None


class PeoplesWord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that people said of a run."""

    creation: Creation | None = None
    amended: dict[str, Amended] = {}  # by field of Claims
    withdrawn: Signed | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a manual job stands by people's word. An inferred time is when somebody first said so."""

    state: State
    submit_us: int | None
    start_us: int | None
    start_inferred: bool
    end_us: int | None
    end_inferred: bool
    outcome: OutcomeRegister

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state in _OVER

    @property
    def ruling(self) -> Ruling:
        """State, verdict and exit status."""
        begun = self.state is not State.PENDING
        ruling = rule((), self.outcome, begun=begun, over=self.is_over)
        return msgspec.structs.replace(ruling, source=PERSON if self.is_over else None)


def misplaced(event: Event) -> str | None:
    """Why an event cannot be about the job it names; None if it can."""
    manual = is_manual(event.job_id)
    if event.kind not in PERSONS_KINDS:
        return "a manual job changes by people's word alone" if manual else None
    if manual:
        return None
    if event.kind is not EventKind.JOB_AMENDED:
        return "only manual jobs are created and withdrawn by people"
    others = [name for name in said_fields(event.claims or Claims()) if name not in REMARKS]
    return f"people may say {' and '.join(REMARKS)} of a job that is no manual one, not {others[0]}" if others else None


def about_nothing(event: Event) -> str | None:
    """Why an event that belongs to no run at hand begins none; None if it does: a remark is on what is there."""
    if event.kind is EventKind.JOB_AMENDED and not is_manual(event.job_id):
        return f"no run {event.run or 1} of {event.job_id} is held to be amended"
    return None


def told_by_person(held: PeoplesWord, event: Event) -> PeoplesWord:
    """People's word after one more of their events."""
    stamp = Stamp(0, event.time_us, event.event_id)
    match event.kind:
        case EventKind.JOB_CREATED:
            if held.creation is not None and held.creation.stamp <= stamp:
                return held
            return msgspec.structs.replace(held, creation=Creation(stamp=stamp, claims=event.claims or Claims()))
        case EventKind.JOB_WITHDRAWN:
            if held.withdrawn is not None and held.withdrawn.stamp <= stamp:
                return held
            signed = Signed(stamp=stamp, person=event.person, sent_by=event.sent_by)
            return msgspec.structs.replace(held, withdrawn=signed)
        case _:
            return _amended(held, stamp, event.claims or Claims())


def _amended(held: PeoplesWord, stamp: Stamp, claims: Claims) -> PeoplesWord:
    amended = dict(held.amended)
    for name in said_fields(claims):
        if name not in amended or amended[name].stamp < stamp:
            amended[name] = Amended(stamp, getattr(claims, name))
    return msgspec.structs.replace(held, amended={name: amended[name] for name in sorted(amended)})


def last_said_us(word: PeoplesWord, claims: Claims) -> int:
    """When people last said something of the fields that `claims` speaks of; 0 if they did not."""
    stamps = [word.amended[name].stamp.time_us for name in said_fields(claims) if name in word.amended]
    return max(stamps, default=0)


def claims_of(word: PeoplesWord) -> Claims:
    """What people say now, with None for what nobody says."""
    created = Claims() if word.creation is None else word.creation.claims
    last: dict[str, Any] = {name: one.value for name, one in word.amended.items()}
    return msgspec.structs.replace(created, **last)


def facts_by_people(word: PeoplesWord) -> JobFacts:
    """What people say of the job itself."""
    return facts_of(claims_of(word))


def standing_of(word: PeoplesWord) -> Standing:
    """How a manual job stands.

    A state without its time says that the job had begun, or was over, by when somebody said so. An end before the start
    is no end that anybody can mean: then the start is the earliest, and the end inferred.
    """
    claims = claims_of(word)
    state = _state(claims)
    start_us, start_inferred = claims.start_us, False
    if start_us is None and state is State.RUNNING:
        start_us, start_inferred = _said_us(word), True
    end_us, end_inferred = None, False
    if state in _OVER:
        end_us, end_inferred = claims.end_us, False
        if end_us is None:
            end_us, end_inferred = _said_us(word), True
        if end_us is not None and start_us is not None and end_us < start_us:
            end_us, end_inferred = start_us, True
    return Standing(
        state=state,
        submit_us=claims.submit_us,
        start_us=start_us,
        start_inferred=start_inferred,
        end_us=end_us,
        end_inferred=end_inferred,
        outcome=_outcome(claims, state),
    )


def _state(claims: Claims) -> State:
    """As said, unless times say that the job is further on."""
    said = State.PENDING if claims.state is None else State(claims.state)  # text, where it was stored
    if said not in _OVER and claims.end_us is not None:
        return State.ENDED
    return State.RUNNING if said is State.PENDING and claims.start_us is not None else said


def _said_us(word: PeoplesWord) -> int | None:
    """When somebody said the state that counts."""
    if (said := word.amended.get("state")) is not None:
        return said.stamp.time_us
    return None if word.creation is None else word.creation.stamp.time_us


def _outcome(claims: Claims, state: State) -> OutcomeRegister:
    final = str(state) if state in _FINAL else None
    outcome = Outcome(exit_code=claims.exit_code, exit_signal=claims.exit_signal, final_state=final)
    return OutcomeRegister(stamp=Stamp(0, 0, ""), outcome=outcome, confirmed=final is not None)
