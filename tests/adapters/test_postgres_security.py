"""Tables of tokens and of who was turned away: what daemons may do there, and what is kept."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from jobtrail.adapters.postgres import PostgresNodeTokens, PostgresSecurity
from jobtrail.core.access.ports import SecurityEvent
from jobtrail.domain.errors import StoreRefused

DIGESTS = [hashlib.sha256(b"%d" % number).digest() for number in range(4)]
BASE_US = 1_760_000_000_000_000


def event(**changes: Any) -> SecurityEvent:
    values = {
        "what": "wrong_token", "who": "", "peer": "10.0.0.9", "detail": "", "reporter": "n1", "first_us": BASE_US,
        "last_us": BASE_US + 5, "times": 3, **changes,
    }  # fmt: skip
    return SecurityEvent(**values)


async def test_two_tokens_of_a_node_are_valid_at_once_and_no_third(pool: Any) -> None:
    tokens = PostgresNodeTokens(pool, timeout_seconds=10.0)
    later = datetime.now(UTC) + timedelta(days=1)
    await tokens.add("n1", DIGESTS[0], expires=None, by="root")
    await tokens.add("n1", DIGESTS[1], expires=later, by="root")
    with pytest.raises(StoreRefused, match="n1 has two valid tokens"):
        await tokens.add("n1", DIGESTS[2], expires=None, by="root")
    await tokens.add("n2", DIGESTS[2], expires=None, by="root")
    gone = await tokens.revoke(DIGESTS[0].hex()[:12], by="eve")
    assert [(row["node"], row["id"]) for row in gone] == [("n1", DIGESTS[0].hex()[:12])]
    assert await tokens.revoke(DIGESTS[0].hex()[:12], by="eve") == []
    await tokens.add("n1", DIGESTS[3], expires=None, by="root")
    held = {one.digest: one for one in await tokens.tokens()}
    assert {digest: (one.node, one.revoked) for digest, one in held.items()} == {
        DIGESTS[0]: ("n1", True), DIGESTS[1]: ("n1", False), DIGESTS[2]: ("n2", False), DIGESTS[3]: ("n1", False),
    }  # fmt: skip
    assert held[DIGESTS[1]].expires_us == int(later.timestamp() * 1_000_000)
    assert len(await tokens.list("n1", all_states=False)) == 2
    assert {row["state"] for row in await tokens.list(None, all_states=True)} == {"valid", "revoked"}
    assert [row["node"] for row in await tokens.revoke("n1", by="eve")] == ["n1", "n1"]


async def test_the_same_digest_is_no_second_token(pool: Any) -> None:
    tokens = PostgresNodeTokens(pool, timeout_seconds=10.0)
    await tokens.add("n1", DIGESTS[0], expires=None, by="root")
    with pytest.raises(StoreRefused):
        await tokens.add("n2", DIGESTS[0], expires=None, by="root")
    with pytest.raises(StoreRefused):
        await tokens.add("n 3", DIGESTS[1], expires=None, by="root")


async def test_what_was_noticed_is_kept_newest_first(pool: Any) -> None:
    security = PostgresSecurity(pool, timeout_seconds=10.0)
    await security.record([event(), event(who="uid 7", what="wrong_sender", last_us=BASE_US + 9, detail="a\0b\ud800")])
    rows = await security.security_events(since=None, limit=10)
    assert [(row["what"], row["who"], row["times"]) for row in rows] == [
        ("wrong_sender", "uid 7", 3),
        ("wrong_token", None, 3),
    ]
    assert rows[0]["detail"] == "a\ufffdb?"
    assert len(await security.security_events(since=rows[0]["last_at"], limit=10)) == 1
    assert len(await security.security_events(since=None, limit=1)) == 1


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("SELECT count(*) FROM node_tokens", True),
        ("SELECT count(*) FROM security_events", True),
        (
            "INSERT INTO security_log (what, who, peer, detail, reporter, first_at, last_at, times)"
            " VALUES ('a', '', '', '', '', now(), now(), 1)", True,
        ),
        ("UPDATE security_log SET times = 1", False),
        ("DELETE FROM security_log", False),
        ("TRUNCATE security_log", False),
        ("SELECT jobtrail_prune_security(365)", False),
        ("INSERT INTO node_tokens (digest, node, created_by) VALUES (sha256(''), 'n9', 'me')", False),
        ("UPDATE node_tokens SET revoked_at = NULL", False),
        ("DELETE FROM node_tokens", False),
        ("SELECT jobtrail_add_node_token('n9', sha256(''), NULL, 'me')", False),
    ],
)  # fmt: skip
async def test_a_daemons_login_checks_tokens_and_makes_none(pool: Any, statement: str, allowed: bool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("SET ROLE jobtrail_ingest")
        try:
            if allowed:
                await connection.execute(statement)
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.execute("RESET ROLE")


@pytest.mark.parametrize("role", ["jobtrail_reader", "jobtrail_auditor"])
async def test_who_draws_dashboards_sees_none_of_it(pool: Any, role: str) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"SET ROLE {role}")
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT * FROM node_tokens")
            if role == "jobtrail_auditor":
                await connection.execute("SELECT * FROM security_events")
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("SELECT * FROM security_events")
        finally:
            await connection.execute("RESET ROLE")


async def stored(pool: Any, *days_ago: int) -> None:
    """Events that were stored so long ago, by daemons whose clocks are wrong."""
    await pool.executemany(
        "INSERT INTO security_log (what, who, peer, detail, reporter, first_at, last_at, times, stored_at)"
        " VALUES ('wrong_token', '', $1, '', 'n1', '2001-01-01', '2037-01-01', 1, now() - make_interval(days => $2))",
        [(f"10.0.0.{days}", days) for days in days_ago],
    )


async def test_old_events_are_removed_by_the_databases_clock(pool: Any) -> None:
    security = PostgresSecurity(pool, timeout_seconds=10.0)
    await stored(pool, 0, 29, 31, 90)
    assert await security.prune_security(keep_days=30) == 2
    assert await security.prune_security(keep_days=30) == 0
    assert {row["peer"] for row in await security.security_events(since=None, limit=10)} == {"10.0.0.0", "10.0.0.29"}


async def test_some_are_removed_at_a_time(pool: Any) -> None:
    security = PostgresSecurity(pool, timeout_seconds=10.0)
    await pool.execute(
        "INSERT INTO security_log (what, who, peer, detail, reporter, first_at, last_at, times, stored_at)"
        " SELECT 'wrong_token', '', '', '', 'n1', now(), now(), 1, now() - interval '99 days'"
        " FROM generate_series(1, 10007)"
    )
    assert [await security.prune_security(keep_days=30) for _ in range(3)] == [10_000, 7, 0]


async def test_a_legal_hold_keeps_them_and_a_week_is_always_kept(pool: Any) -> None:
    security = PostgresSecurity(pool, timeout_seconds=10.0)
    await stored(pool, 99)
    await pool.execute("SELECT jobtrail_hold('case 12', 'ada', false)")
    assert await security.prune_security(keep_days=30) == 0
    await pool.execute("SELECT jobtrail_hold('case 12 is over', 'ada', true)")
    for days in (6, 0, -1):
        with pytest.raises(StoreRefused, match="7 days at least"):
            await security.prune_security(keep_days=days)
    assert await security.prune_security(keep_days=7) == 1


async def test_servers_remove_old_events_and_no_others(pool: Any) -> None:
    await stored(pool, 99)
    async with pool.acquire() as connection:
        await connection.execute("SET ROLE jobtrail_sealer")
        try:
            assert await connection.fetchval("SELECT jobtrail_prune_security(30)") == 1
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM security_log")
        finally:
            await connection.execute("RESET ROLE")
