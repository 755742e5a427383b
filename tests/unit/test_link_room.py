"""Those whom a full server sends away stay away as long as makes as many come as it can serve."""

from jobtrail.adapters.http.link_room import MOST_RETRY_SECONDS, RETRY_SECONDS, WINDOW_SECONDS, Crowd


def test_nodes_that_come_back_when_told_soon_all_find_room() -> None:
    """10,000 nodes, of whom 20 can be served in a second: told too little first, they come as can be served."""
    now = 0.0
    crowd = Crowd(lambda: now)
    waits = RETRY_SECONDS
    for _ in range(12):
        came = round(10_000 / waits * WINDOW_SECONDS)
        for number in range(came):
            if number < 20 * WINDOW_SECONDS:
                crowd.served()
            else:
                waits = crowd.refused()
        now += WINDOW_SECONDS
    assert waits == MOST_RETRY_SECONDS


def test_when_the_crowd_is_gone_they_are_told_to_come_soon_again() -> None:
    now = 0.0
    crowd = Crowd(lambda: now)
    for _ in range(99):
        crowd.refused()
    now += WINDOW_SECONDS
    assert crowd.refused() > RETRY_SECONDS
    for _ in range(12):
        now += WINDOW_SECONDS
        crowd.served()
    assert crowd.refused() == RETRY_SECONDS


def test_a_few_that_are_sent_away_are_told_little_more() -> None:
    now = 0.0
    crowd = Crowd(lambda: now)
    for number in range(100):
        crowd.refused() if number % 10 == 0 else crowd.served()
    now += WINDOW_SECONDS
    assert crowd.refused() == RETRY_SECONDS
