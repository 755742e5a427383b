"""RAPL zones from trees of files laid out as Documentation/power/powercap/powercap.rst shows them."""

import os
import tempfile
from pathlib import Path

import pytest

from jobtrail.adapters.rapl import RaplEnergy
from jobtrail.domain.energy import EnergyCounter, EnergyReading
from tests.requirements import require_root

RANGE = 262_143_328_850  # of an Intel package: 2^32 units of 61 µJ


class Powercap:
    """A /sys with a powercap class, whose zones are reached by links as in a real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.zones = root / "class" / "powercap"
        self.zones.mkdir(parents=True)

    def put(self, zone: str, name: str, energy: str | int = 1_000, largest: str | int | None = RANGE) -> Path:
        """A zone under /sys/devices, linked from the class."""
        home = self.root / "devices" / "virtual" / "powercap" / zone
        home.mkdir(parents=True)
        (home / "name").write_text(f"{name}\n")
        (home / "energy_uj").write_text(f"{energy}\n")
        if largest is not None:
            (home / "max_energy_range_uj").write_text(f"{largest}\n")
        (self.zones / zone).symlink_to(home)
        return home

    def read(self) -> EnergyReading:
        return RaplEnergy(self.root, clock_us=lambda: 42).read_energy()


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    tree = Powercap(tmp_path / "sys")
    (tree.zones / "intel-rapl").mkdir()  # the control type itself
    return tree


def counters(reading: EnergyReading) -> dict[str, int]:
    return {counter.name: counter.microjoules for counter in reading.counters}


def test_packages_and_dram_of_two_sockets_and_nothing_twice(powercap: Powercap) -> None:
    """Neither parts of a package, nor the platform above it, nor the second register of the same counter."""
    powercap.put("intel-rapl:0", "package-0", 100)
    powercap.put("intel-rapl:0:0", "core", 10)
    powercap.put("intel-rapl:0:1", "dram", 30, 65_712_999_613)
    powercap.put("intel-rapl:0:2", "uncore", 11)
    powercap.put("intel-rapl:1", "package-1", 200)
    powercap.put("intel-rapl:1:0", "dram", 40)
    powercap.put("intel-rapl:2", "psys", 999)
    powercap.put("intel-rapl-mmio:0", "package-0", 101)
    powercap.put("intel-rapl-mmio:0:0", "dram", 31)
    got = powercap.read()
    assert got.time_us == 42
    assert counters(got) == {"package-0": 100, "package-0/dram": 30, "package-1": 200, "package-1/dram": 40}
    assert got.counters[1] == EnergyCounter(
        component="dram", name="package-0/dram", microjoules=30, range_microjoules=65_712_999_613
    )
    assert got.absent == {}


def test_the_second_register_counts_where_it_is_the_only_one(powercap: Powercap) -> None:
    powercap.put("intel-rapl-mmio:0", "package-0", 7)
    assert counters(powercap.read()) == {"package-0": 7}


def test_an_unreadable_register_is_not_replaced_by_the_other_whose_count_is_another(powercap: Powercap) -> None:
    powercap.put("intel-rapl:0", "package-0", "")
    powercap.put("intel-rapl-mmio:0", "package-0", 7)
    got = powercap.read()
    assert counters(got) == {}
    assert got.absent["package-0"] == "not understood"


def test_an_amd_node_has_packages_and_no_dram(powercap: Powercap) -> None:
    powercap.put("intel-rapl:0", "package-0", 5, 65_532_610_987)
    powercap.put("intel-rapl:0:0", "core", 1, 65_532_610_987)
    got = powercap.read()
    assert counters(got) == {"package-0": 5}
    assert got.absent == {"dram": "no RAPL dram zone"}


def test_dies_of_a_package_are_counted_each(powercap: Powercap) -> None:
    powercap.put("intel-rapl:0", "package-0-die-0", 1)
    powercap.put("intel-rapl:1", "package-0-die-1", 2)
    powercap.put("intel-rapl:1:0", "dram", 3)
    assert counters(powercap.read()) == {"package-0-die-0": 1, "package-0-die-1": 2, "package-0-die-1/dram": 3}


def test_dram_of_the_platform_is_nobodys(powercap: Powercap) -> None:
    powercap.put("intel-rapl:0", "psys")
    powercap.put("intel-rapl:0:0", "dram")
    got = powercap.read()
    assert got.counters == ()
    assert got.absent == {"package": "no RAPL package zone", "dram": "no RAPL dram zone"}


def test_no_powercap_tree_is_a_reason_and_not_an_error(tmp_path: Path) -> None:
    got = RaplEnergy(tmp_path).read_energy()
    reason = f"{tmp_path}/class/powercap: no such file"
    assert got.counters == ()
    assert got.absent == {"package": reason, "dram": reason}
    assert got.time_us > 1_600_000_000_000_000


@pytest.mark.parametrize("content", ["", "-1", "1e6", "12 34", "9" * 19 + "9", str(2**63), "٣"])
def test_what_is_no_count_is_absent_and_never_nought(powercap: Powercap, content: str) -> None:
    home = powercap.put("intel-rapl:0", "package-0")
    (home / "energy_uj").write_text(content)
    got = powercap.read()
    assert got.counters == ()
    assert got.absent["package-0"] == "not understood"


def test_a_counter_that_cannot_be_read_says_why(powercap: Powercap) -> None:
    home = powercap.put("intel-rapl:0", "package-0")
    (home / "energy_uj").unlink()
    assert powercap.read().absent["package-0"] == "no such file"
    (home / "energy_uj").mkdir()  # read(2) of a directory: EISDIR, as EACCES without the rights
    assert powercap.read().absent["package-0"] == "EISDIR"


def test_without_rights_the_reason_is_eacces() -> None:
    """Since Linux 5.10 energy_uj is 0400 root."""
    require_root("a file that another user cannot read")
    with tempfile.TemporaryDirectory() as name:  # not below pytest's own folder, which only root may enter
        powercap = Powercap(Path(name))
        Path(name).chmod(0o755)
        (powercap.put("intel-rapl:0", "package-0") / "energy_uj").chmod(0o400)
        os.seteuid(65_534)
        try:
            got = powercap.read()
        finally:
            os.seteuid(0)
    assert got.absent["package-0"] == "EACCES"


def test_an_unreadable_name_is_told_by_the_zone(powercap: Powercap) -> None:
    home = powercap.put("intel-rapl:0", "package-0")
    (home / "name").unlink()
    got = powercap.read()
    assert got.counters == ()
    assert got.absent["intel-rapl:0"] == "no such file"


@pytest.mark.parametrize("largest", [None, 0, "", "many", 999])
def test_a_range_that_cannot_be_is_unknown(powercap: Powercap, largest: str | int | None) -> None:
    """Nought, a word, or one below the count itself: then a wrap cannot be told from a reset."""
    powercap.put("intel-rapl:0", "package-0", 1_000, largest)
    (counter,) = powercap.read().counters
    assert counter.microjoules == 1_000
    assert counter.range_microjoules is None


def test_zones_that_come_and_go_are_seen(powercap: Powercap) -> None:
    source = RaplEnergy(powercap.root)
    assert counters(source.read_energy()) == {}
    home = powercap.put("intel-rapl:0", "package-0", 1)
    assert counters(source.read_energy()) == {"package-0": 1}
    (home / "energy_uj").write_text("2\n")
    assert counters(source.read_energy()) == {"package-0": 2}
    (powercap.zones / "intel-rapl:0").unlink()
    assert counters(source.read_energy()) == {}


def test_odd_names_are_not_zones(powercap: Powercap) -> None:
    powercap.put("dtpm:0", "package-0")
    powercap.put("intel-rapl:x", "package-0")
    powercap.put("intel-rapl:3", "package-zero")
    assert powercap.read().counters == ()
