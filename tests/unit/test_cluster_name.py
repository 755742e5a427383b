"""Which cluster the server role asks for: the settings, Slurm itself, then guesses that are never kept."""

import msgspec

from jobtrail.core.slurm.cluster_name import ASK_SECONDS, ClusterName
from jobtrail.domain.errors import SlurmUnavailable
from tests.unit.slurm_world import World


class Guess:
    def __init__(self, name: str | None) -> None:
        self.name = name

    async def __call__(self) -> str | None:
        return self.name


def named(world: World, configured: str = "", *guesses: Guess, controller: bool = True) -> ClusterName:
    slurm = world.slurm if controller else None
    return ClusterName(configured, controller=slurm, guesses=guesses, clock=world.clock)


async def test_the_settings_decide_and_slurm_is_not_asked() -> None:
    world = World()
    assert await named(world, "set", Guess("guessed"))() == "set"
    assert world.slurm.asked == []


async def test_slurms_own_name_comes_before_guesses_and_is_kept() -> None:
    world = World()
    world.slurm.current = [
        world.record(1, "RUNNING"),
        msgspec.structs.replace(world.record(2, "PENDING"), cluster=None),
    ]
    name = named(world, "", Guess("tried-out"))
    assert [await name(), await name()] == ["c1", "c1"]
    assert world.slurm.asked == ["jobs"]


async def test_an_idle_or_silent_slurm_leaves_it_to_guesses_and_is_asked_again_later() -> None:
    world = World()
    world.slurm.problem = SlurmUnavailable("away")
    first, second = Guess(None), Guess("guessed")
    name = named(world, "", first, second)
    assert [await name(), await name()] == ["guessed", "guessed"]
    world.slurm.problem = None
    world.clock.advance(ASK_SECONDS)
    assert await name() == "guessed"
    assert world.slurm.asked == ["jobs", "jobs"], "an empty queue names no cluster; it is not asked at each turn"
    world.slurm.current = [world.record(1, "RUNNING")]
    second.name = None
    assert await name() is None
    world.clock.advance(ASK_SECONDS)
    assert await name() == "c1"


async def test_two_clusters_in_one_answer_name_none() -> None:
    world = World()
    one = world.record(1, "RUNNING")
    world.slurm.current = [one, msgspec.structs.replace(one, cluster="other")]
    assert await named(world)() is None


async def test_without_a_controller_only_guesses_are_left() -> None:
    world = World()
    assert await named(world, "", Guess("guessed"), controller=False)() == "guessed"
