"""docker-compose.yml is understood by Compose, and keeps to what a server of others' data should keep to."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon_process import REPOSITORY
from tests.requirements import require_tool

ALWAYS = {"postgres", "migrate", "jobtrail", "prometheus", "grafana"}
SECRETS = REPOSITORY / "deploy" / "docker" / "make-secrets"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the compose file needs beside it, with fresh secrets; the repository itself stays as it is."""
    directory = tmp_path_factory.mktemp("compose")
    shutil.copy(REPOSITORY / "docker-compose.yml", directory)
    shutil.copytree(REPOSITORY / "deploy", directory / "deploy", ignore=shutil.ignore_patterns("secrets", "*.env"))
    subprocess.run([directory / "deploy/docker/make-secrets"], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def resolved(project: Path) -> dict[str, Any]:
    """The file as Compose understands it, every profile on."""
    compose = require_tool("docker-compose", "whether Compose understands docker-compose.yml")
    done = subprocess.run(
        [compose, "--profile", "slurm", "config"], cwd=project, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(project)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


def test_which_containers_there_are(resolved: dict[str, Any]) -> None:
    services = resolved["services"]
    assert set(services) == {*ALWAYS, "slurm"}
    assert {name for name, service in services.items() if service.get("profiles")} == {"slurm"}


def test_images_are_pinned(resolved: dict[str, Any]) -> None:
    for name, service in resolved["services"].items():
        assert re.fullmatch(r"[a-z0-9/-]+:v?[0-9]+\.[0-9]+[a-z0-9.-]*", service["image"]), name


def test_all_but_slurm_have_no_more_rights_than_they_need(resolved: dict[str, Any]) -> None:
    for name in ALWAYS:
        service = resolved["services"][name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9][0-9]*:[0-9]+", service["user"]), f"{name} must not be root"
        assert not service.get("privileged"), name


def test_ports_are_open_on_this_machine_alone(resolved: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in resolved["services"].items() if "ports" in service}
    assert set(published) == {"jobtrail", "prometheus", "grafana"}
    for name, ports in published.items():
        assert all(str(port).startswith("127.0.0.1:") for port in ports), (name, ports)


def test_each_container_tells_its_health_or_ends(resolved: dict[str, Any]) -> None:
    for name in ("postgres", "prometheus", "grafana"):
        assert resolved["services"][name]["healthcheck"]["test"][0] == "CMD", name
    waits = resolved["services"]["jobtrail"]["depends_on"]
    assert waits == {"migrate": {"condition": "service_completed_successfully"}}


def test_passwords_are_files_and_stand_nowhere_else(project: Path, resolved: dict[str, Any]) -> None:
    """No value of a secret in what Compose makes of the file; every secret that is used is made."""
    made = {path.name: path.read_text() for path in (project / "deploy/docker/secrets").iterdir()}
    assert set(made) == set(resolved["secrets"])
    assert len(set(made.values())) == len(made)
    text = yaml.safe_dump(resolved)
    for name, value in made.items():
        assert re.fullmatch("[0-9a-f]{64}", value), name
        assert value not in text
    for service in resolved["services"].values():
        for name, value in service.get("environment", {}).items():
            is_secret = re.search("PASSWORD|TOKEN", name)
            assert not is_secret or re.fullmatch(r"/run/secrets/\w+|\$+__file\{/run/secrets/\w+\}", str(value)), name
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{name} holds a password"


def test_secrets_are_for_their_owner_and_stay_when_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    subprocess.run([SECRETS, directory], check=True, capture_output=True)
    before = {path.name: path.read_text() for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "postgres_password").unlink()
    done = subprocess.run([SECRETS, directory], check=True, capture_output=True, text=True)
    assert done.stdout == f"made {directory}/postgres_password\n"
    after = {path.name: path.read_text() for path in directory.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"postgres_password"}


def test_what_is_mounted_from_the_repository_is_there(resolved: dict[str, Any], project: Path) -> None:
    for name, service in resolved["services"].items():
        for volume in service.get("volumes", []):
            source, target, mode = (*str(volume).split(":"), "")[:3]
            if source.startswith("/"):
                assert mode == "ro", f"{name} may write {target}"
                assert (REPOSITORY / Path(source).relative_to(project)).exists(), source


def test_prometheus_scrapes_as_the_example_does() -> None:
    """Only addresses differ, so what is changed there is not forgotten here."""
    example = yaml.safe_load((REPOSITORY / "grafana/prometheus/prometheus.yml").read_text())
    ours = yaml.safe_load((REPOSITORY / "deploy/docker/prometheus.yml").read_text())
    assert ours["global"] == example["global"]
    assert ours["alerting"]["alert_relabel_configs"] == example["alerting"]["alert_relabel_configs"]
    (job,), (of_example,) = ours["scrape_configs"], example["scrape_configs"]
    assert job.pop("static_configs") == [{"targets": ["jobtrail:8080"]}]
    own = job["relabel_configs"].pop(0)
    assert own == {"source_labels": ["__meta_jobtrail_node"], "regex": "jobtrail", "action": "drop"}
    job["http_sd_configs"][0]["url"] = of_example["http_sd_configs"][0]["url"]
    assert job == of_example


def test_promtool_accepts_its_configuration(tmp_path: Path) -> None:
    """With the rules where the compose file mounts them."""
    promtool = require_tool("promtool", "whether Prometheus accepts deploy/docker/prometheus.yml")
    text = (REPOSITORY / "deploy/docker/prometheus.yml").read_text()
    moved = tmp_path / "prometheus.yml"
    moved.write_text(text.replace("/etc/prometheus/rules", str(REPOSITORY / "grafana/prometheus/rules")))
    done = subprocess.run([promtool, "check", "config", moved], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_grafana_is_given_every_variable_of_its_provisioning(resolved: dict[str, Any]) -> None:
    files = (REPOSITORY / "grafana/provisioning").rglob("*.yaml")
    wanted = {name for path in files for name in re.findall(r"\$\{(JOBTRAIL_\w+)\}", path.read_text())}
    service = resolved["services"]["grafana"]
    given = {name: value for name, value in service["environment"].items() if name.startswith("JOBTRAIL_")}
    assert wanted == set(given)
    targets = {str(volume).split(":")[1] for volume in service["volumes"]}
    assert given["JOBTRAIL_DASHBOARDS"] in targets
    used = re.search(r"/run/secrets/(\w+)", given["JOBTRAIL_POSTGRES_PASSWORD"])
    assert used is not None
    assert used[1] in {secret["source"] if isinstance(secret, dict) else secret for secret in service["secrets"]}
