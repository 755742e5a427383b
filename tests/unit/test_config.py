"""Settings: the environment over the file, and every mistake told with its place and what is allowed there."""

import platform
from pathlib import Path

import msgspec
import pytest

from jobtrail import config
from jobtrail.config import ALIASES, NOT_SETTINGS, Config, Http, find_file, load
from jobtrail.config_link import Link, left_open
from jobtrail.domain.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobtrail.yaml"


def test_without_anything_the_defaults_hold(file: Path) -> None:
    file.write_text("# nothing but a comment\n")
    assert load(None, {}) == load(file, {}) == Config()


def test_the_file_sets_what_it_names(file: Path) -> None:
    file.write_text("scheduler: local\nroles: [node]\nhttp: {port: 9090}\nsampling:\n  interval_seconds: 5\n")
    read = load(file, {})
    assert (read.scheduler, read.roles, read.http.port, read.sampling.interval_seconds) == ("local", ("node",), 9090, 5)
    assert read.http.host == Config().http.host


def test_the_projects_names_win_over_aliases_and_these_over_the_file(file: Path) -> None:
    file.write_text("http: {port: 1, host: a}\ncluster: file\n")
    environment = {"PORT": "2", "HOST": "b", "JOBTRAIL_HTTP__PORT": "3", "UNRELATED": "x"}
    read = load(file, environment)
    assert (read.http.port, read.http.host, read.cluster) == (3, "b", "file")
    assert load(file, dict(reversed(environment.items()))) == read


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "postgresql://db/x", "postgresql://db/x"),
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("PORT", "80", 80),
        ("SCHEDULER_BACKEND", "local", "local"),
        ("METRICS_RETENTION_DAYS", "30", 30),
        ("SEED_DEMO", "true", True),
        ("SLURM_BASE_URL", "http://slurm:6820", "http://slurm:6820"),
        ("SLURM_API_VERSION", "v0.0.40", "v0.0.40"),
        ("SLURM_AUTH_TOKEN", "a.b.c", "a.b.c"),
    ],
)
def test_names_known_from_similar_services_are_honoured(name: str, value: str, expected: object) -> None:
    read: object = load(None, {name: value})
    for part in ALIASES[name].split("."):
        read = getattr(read, part)
    assert read == expected
    assert load(None, {name: ""}) == Config(), "an alias that is empty is not set"


def test_all_aliases_are_tested_above_and_name_settings() -> None:
    marks = test_names_known_from_similar_services_are_honoured.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(ALIASES)


@pytest.mark.parametrize(
    ("text", "truth"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_booleans_are_read_from_text(text: str, truth: bool) -> None:
    assert load(None, {"JOBTRAIL_SEED_DEMO": text}).seed_demo is truth


@pytest.mark.parametrize(("text", "roles"), [("node", ("node",)), ("server, node", ("server", "node"))])
def test_a_list_is_written_with_commas(text: str, roles: tuple[str, ...]) -> None:
    assert load(None, {"JOBTRAIL_ROLES": text}).roles == roles


def test_numbers_that_are_text_in_the_file_are_read_as_in_the_environment(file: Path) -> None:
    file.write_text('http: {port: "9091"}\n')
    assert load(file, {}).http.port == 9091
    assert load(None, {"JOBTRAIL_CLUSTER": "123"}).cluster == "123"


def test_variables_of_the_hooks_are_no_settings() -> None:
    """They share the prefix; the hooks read them."""
    assert load(None, dict.fromkeys(NOT_SETTINGS, "x")) == Config()


def test_a_section_of_nothing_but_comments_is_empty(file: Path) -> None:
    """As an example file is after everything in it was commented out."""
    file.write_text("database:\n  # url: postgresql://…\nhttp:\n")
    assert load(file, {}) == Config()
    assert load(file, {"JOBTRAIL_HTTP__PORT": "5"}).http.port == 5


PLACES = [
    ("htp: {port: 1}", "`htp`: is not a setting; there are scheduler, cluster,"),
    ("http: {prot: 1}", "`http.prot`: is not a setting; there are host, port,"),
    ("htp:\n", "`htp`: is not a setting"),
    ("http: {1: 2}", "`http.1`: is not a setting"),
    ("1: 2", "`1`: is not a setting"),
    ("http: {port: x}", "`http.port`: Expected `int`, got `str`"),
    ("http: {port: 65536}", "`http.port`: Expected `int` <= 65535"),
    ("http: {port: 80.5}", "`http.port`: Expected `int`, got `float`"),
    ("http: 5", "`http`: Expected `object`, got `int`"),
    ("cluster: {http: {}}", "`cluster`: Expected `str`, got `object`"),
    ("seed_demo: perhaps", "`seed_demo`: Expected `bool`, got `str`"),
    ("node:\n", "`node`: Expected `str`, got `null`"),
    ("sampling: {interval_seconds: 0.1}", "`sampling.interval_seconds`: Expected `float` >= 0.2"),
    ("sampling: {checkpoint_seconds: .nan}", "`sampling.checkpoint_seconds`: Expected `float` > 0.0"),
    ("scheduler: pbs", "`scheduler`: Invalid enum value 'pbs'; it is one of slurm, local, demo"),
    ("logging: {level: loud}", "`logging.level`: Invalid enum value 'loud'; it is one of debug, info, warning, error"),
    ("roles: [node, nod]", "`roles`: Invalid enum value 'nod'; it is one of node, server"),
    ("roles: []", "`roles`: Expected `array` of length >= 1; it is one of node, server"),
    ("roles: node", "`roles`: Expected `array`, got `str`; it is one of node, server"),
    ("slurm: {rest_url: 'slurm:6820'}", "`slurm.rest_url`: must be http://HOST:PORT, https://HOST, unix:/PATH of"),
    ("slurm: {rest_version: '40'}", "`slurm.rest_version`: must be such as v0.0.40, or empty; not '40'"),
    ("gpu: {gres_conf: /etc/slurm}", "`gpu.gres_conf`: must be the path of a file gres.conf from the root on"),
    ("gpu: {root: here}", "`gpu.root`: must be a path from the root on; not 'here'"),
    ("- http", "must hold sections such as `database:`, not a single value"),
    ("just words", "must hold sections such as `database:`, not a single value"),
    ("http: [", "is not YAML: "),
    ("http: !!python/object/apply:os.getcwd []", "is not YAML: "),
]


@pytest.mark.parametrize(("text", "told"), PLACES)
def test_a_mistake_in_the_file_is_told_with_its_key(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load(file, {})
    assert refusal.value.where == str(file)
    assert refusal.value.problem.startswith(told)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JOBTRAIL_HTTP__PORT", "x", "`http.port`: Expected `int`, got `str`"),
        ("PORT", "x", "`http.port`: Expected `int`, got `str`"),
        ("JOBTRAIL_HTTP__PROT", "1", "`http.prot`: is not a setting; there are host, port,"),
        ("JOBTRAIL_HTP__PORT", "1", "`htp`: is not a setting; there are scheduler,"),
        ("JOBTRAIL_HTTP", "1", "`http`: Expected `object`, got `str`"),
        ("JOBTRAIL_HTTP__PORT__X", "1", "`port` is not a section"),
        ("JOBTRAIL_ROLES", "", "`roles`: Invalid enum value ''; it is one of node, server"),
        ("SCHEDULER_BACKEND", "pbs", "`scheduler`: Invalid enum value 'pbs'; it is one of slurm, local, demo"),
    ],
)
def test_a_mistake_in_the_environment_is_told_with_its_variable(file: Path, name: str, value: str, told: str) -> None:
    """Not with the file, in which it would be looked for in vain."""
    file.write_text("http: {port: 1}\ndatabase: {pool_size: 2}\n")
    with pytest.raises(ConfigError) as refusal:
        load(file, {name: value})
    assert refusal.value.where == name
    assert refusal.value.problem.startswith(told)


def test_what_is_wrong_in_the_file_is_told_as_the_files_whatever_the_environment_sets(file: Path) -> None:
    file.write_text("http: {prot: 1}\n")
    with pytest.raises(ConfigError, match="prot") as refusal:
        load(file, {"JOBTRAIL_HTTP__PORT": "1", "JOBTRAIL_CLUSTER": "c"})
    assert refusal.value.where == str(file)


def test_a_prefix_without_a_name_is_no_setting() -> None:
    with pytest.raises(ConfigError, match=r"^environment: ``: is not a setting"):
        load(None, {"JOBTRAIL_": "1"})


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "missing.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("cluster: Zürich".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not YAML: 'utf-8' codec"):
        load(latin, {})


def test_the_named_file_is_used_else_the_first_default_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named file that does not exist is an error at `load`, not silently another one."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    monkeypatch.setattr(config, "DEFAULT_PATHS", (first, second))
    assert find_file({}) is None
    second.touch()
    assert find_file({}) == second
    first.touch()
    assert find_file({}) == first
    assert find_file({"JOBTRAIL_CONFIG": "/no/such.yaml"}) == Path("/no/such.yaml")


def test_names_of_node_and_cluster_have_their_defaults() -> None:
    assert Config().node_name == platform.node().split(".")[0]
    assert Config(node="n7").node_name == "n7"
    assert (Config().local_cluster, Config(cluster="c1").local_cluster) == ("local", "c1")


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (Config(), "/run/jobtrail/poke.sock"),
        (Config(http=Http(socket="/tmp/a/b.sock")), "/tmp/a/poke.sock"),
        (Config(http=Http(poke_socket="/tmp/c.sock")), "/tmp/c.sock"),
        (Config(http=Http(poke_socket="")), ""),
        (Config(scheduler="local"), ""),
        (Config(roles=("server",), http=Http(poke_socket="/tmp/c.sock")), ""),
    ],
)
def test_pokes_have_a_socket_where_jobs_of_slurm_are_sampled(config: Config, path: str) -> None:
    assert config.poke_socket == path


def test_every_setting_can_be_set_from_the_environment() -> None:
    """Each with its own default as text: a key that the naming rule could not reach would be refused."""
    tree = msgspec.to_builtins(Config())
    environment = {}
    for name, value in tree.items():
        for key, inner in value.items() if isinstance(value, dict) else [("", value)]:
            text = ",".join(inner) if isinstance(inner, list | tuple) else str(inner)
            environment[f"JOBTRAIL_{name}__{key}".upper().removesuffix("__")] = text
    assert len(environment) > 25
    assert load(None, environment) == Config()


def test_a_node_that_forwards_to_a_server_is_none_itself(file: Path) -> None:
    """Both roles are the default; a server without a database could do nothing."""
    file.write_text("database: {url: 'https://server:8443'}\n")
    with pytest.raises(ConfigError, match=r"set `roles: \[node\]`") as refusal:
        load(file, {})
    assert refusal.value.where == f"{file}: `database.url`"
    read = load(file, {"JOBTRAIL_ROLES": "node"})
    assert read.forwards_to_servers
    assert not Config().forwards_to_servers
    with pytest.raises(ConfigError, match=r"link\.key_file: is the key of a certificate"):
        load(file, {"JOBTRAIL_ROLES": "node", "JOBTRAIL_LINK__KEY_FILE": "/etc/k.pem"})


def test_what_nodes_may_claim_is_named(file: Path) -> None:
    """Host lists keep their brackets, also where commas part a setting in the environment."""
    file.write_text("link: {clusters: [lab, local], controllers: ['ctl[1-2]', db]}\n")
    read = load(file, {})
    assert (read.link.clusters, read.link.controller_nodes) == (("lab", "local"), {"ctl1", "ctl2", "db"})
    read = load(file, {"JOBTRAIL_LINK__CONTROLLERS": "ctl[1,3], db", "JOBTRAIL_LINK__CLUSTERS": ""})
    assert (read.link.clusters, read.link.controller_nodes) == ((), {"ctl1", "ctl3", "db"})
    assert Config().link.controller_nodes == frozenset()


@pytest.mark.parametrize(
    ("text", "words"),
    [("controllers: ['ctl[1-']", "`link.controllers`: must name nodes, such as ctl1 or ctl[1-2]: link.controllers"),
     ("controllers: ['']", "`link.controllers`: must name nodes"),
     ("clusters: ['']", "`link.clusters`: must hold names of clusters"),
     ("clusters: [' lab']", "`link.clusters`: must hold names of clusters"),
     ("clusters: lab", "link.clusters"),
     ("cluster: [lab]", "there are ca_file, certificate_file, key_file, token_file")],
)  # fmt: skip
def test_a_wrong_bound_of_nodes_is_refused_and_none_is_no_bound_by_mistake(file: Path, text: str, words: str) -> None:
    file.write_text(f"link: {{{text}}}\n")
    with pytest.raises(ConfigError) as refusal:
        load(file, {})
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "takes"),
    [("roles: [server]\ndatabase: {url: postgresql://db/x}", True),
     ("database: {url: postgresql://db/x}\nhttp: {node_token_file: /etc/t}", True),
     ("database: {url: postgresql://db/x}", False),
     ("roles: [server]", False),
     ("roles: [node]\ndatabase: {url: postgresql://db/x}\nhttp: {node_token_file: /etc/t}", False),
     ("roles: [node]\ndatabase: {url: 'https://s1:8443'}\nhttp: {node_token_file: /etc/t}", False)],
)  # fmt: skip
def test_a_server_takes_from_nodes(file: Path, settings: str, takes: bool) -> None:
    file.write_text(settings)
    assert load(file, {}).takes_from_nodes is takes


def test_what_is_left_open_is_told_by_its_setting() -> None:
    assert set(left_open(Link())) == {"link.clusters", "link.controllers"}
    assert set(left_open(Link(clusters=("lab",)))) == {"link.controllers"}
    assert left_open(Link(clusters=("lab",), controllers=("ctl",))) == {}


def test_two_tools_that_use_the_same_names_are_refused_together(file: Path) -> None:
    """One family cannot have the labels of both."""
    file.write_text("metrics: {aliases: [cgroup_exporter, jobstats]}\n")
    with pytest.raises(ConfigError) as refusal:
        load(file, {})
    assert refusal.value.where == f"{file}: `metrics.aliases`"
    assert load(None, {"JOBTRAIL_METRICS__ALIASES": "jobstats, dcgm-exporter"}).metrics.aliases == (
        "jobstats",
        "dcgm-exporter",
    )
