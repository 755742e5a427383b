"""hook.conf: read as data, whatever is in it; the environment wins."""

from pathlib import Path

import pytest

from tests.hooks.conftest import Replace, Site, max_seconds, recording_curl
from tests.hooks.hook_process import Environment, assert_harmless, incoming
from tests.hooks.socket_server import SocketServer


def configured(site: Site, text: str | bytes, **more: str) -> Environment:
    """An environment whose settings are those of a hook.conf holding `text`, and of `more`."""
    conf = site.root / "hook.conf"
    conf.write_bytes(text.encode() if isinstance(text, str) else text)
    return {"JOBTRAIL_HOOK_CONF": str(conf), "SLURM_JOB_ID": "4711", **more}


LINES = {
    "plain": "{key}={value}\n",
    "no newline at the end": "{key}={value}",
    "double quotes": '{key}="{value}"\n',
    "single quotes": "{key}='{value}'\n",
    "blanks": "  {key} =  {value}  \t\n",
    "comment behind": "{key}={value}   # why\n",
    "quotes and comment": '{key}="{value}" # "why"\n',
    "windows line ends": "{key}={value}\r\n",
    "the last one counts": "{key}=/nonexistent\n{key}={value}\n",
    "commented out": "{key}={value}\n#{key}=/nonexistent\n # {key}=/nonexistent\n",
    "noise": "\n\n[section]\nnot a setting\n=\n=x\nPATH=/nonexistent\n{key}={value}\nLC_ALL\n",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_settings_are_read(site: Site, line: str) -> None:
    """The usual ways of writing KEY=value are understood."""
    text = line.format(key="JOBTRAIL_SOCKET", value=site.socket)
    with SocketServer(site.socket) as server:
        assert_harmless(site.run_with(configured(site, text, JOBTRAIL_SPOOL=str(site.spool))))
    assert len(server.requests) == 1


def test_a_value_may_hold_blanks_equals_signs_and_hashes(site: Site) -> None:
    """Quotes keep what is between them; without quotes only a # after a blank begins a comment."""
    names = {'"{}"': "a b=c #d", "{}": "a b=c#d"}
    for form, name in names.items():
        text = "JOBTRAIL_SOCKET=/nonexistent\nJOBTRAIL_SPOOL=" + form.format(site.root / name)
        assert_harmless(site.run_with(configured(site, text)))
        assert len(incoming(site.root / name)) == 1


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_nothing_in_it_is_run(site: Site, quote: str) -> None:
    """The file is never sourced: a substitution is just an odd name."""
    pwned = site.root / "pwned"
    odd = f"{site.root}/$(touch {pwned})`touch {pwned}`;touch {pwned};*"
    text = f"touch {pwned}\n$(touch {pwned})=x\nJOBTRAIL_SOCKET=/nonexistent\nJOBTRAIL_SPOOL={quote}{odd}{quote}\n"
    assert_harmless(site.run_with(configured(site, text)))
    assert not pwned.exists()
    assert len(incoming(Path(odd))) == 1


def test_the_environment_wins(site: Site, replaced: Replace) -> None:
    """A test, or a site's own wrapper, can overrule the file."""
    text = "JOBTRAIL_SOCKET=/nonexistent\nJOBTRAIL_SPOOL=/nonexistent\nJOBTRAIL_TIMEOUT=1.5\n"
    environment = configured(site, text, **site_settings(site), JOBTRAIL_TIMEOUT="0.2")
    with SocketServer(site.socket, status=503) as server:
        assert_harmless(site.run_with(environment))
    assert len(server.requests) == 1
    assert len(incoming(site.spool)) == 1
    asking = Site(site.root, site.shell, replaced({"curl": recording_curl(site.root)}))
    assert_harmless(asking.run_with(environment))
    assert max_seconds(site.root) == 0.2


def site_settings(site: Site) -> dict[str, str]:
    return {"JOBTRAIL_SOCKET": str(site.socket), "JOBTRAIL_SPOOL": str(site.spool)}


@pytest.mark.parametrize("content", [b"\xff\xfe\x01=\x02\n" * 100, b"", b"=" * 5000, b"JOBTRAIL_SOCKET=\n", b"a\0b=c"])
def test_rubbish_in_it_does_no_harm(site: Site, content: bytes) -> None:
    """Lines that are no settings are passed over."""
    assert_harmless(site.run_with(configured(site, content, JOBTRAIL_SPOOL=str(site.spool))))
    assert len(incoming(site.spool)) == 1


def test_a_directory_in_its_place_does_no_harm(site: Site) -> None:
    """The settings are then those of the environment, and the defaults."""
    (site.root / "hook.conf").mkdir()
    with SocketServer(site.socket) as server:
        assert_harmless(site.run())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 1.0),
        ("0.3", 0.3),
        (".3", 0.3),
        ("0.08", 0.1),
        ("0.309", 0.309),
        ("0", 0.1),
        ("-1", 1.0),
        ("soon", 1.0),
        ("1e3", 1.0),
        ("1.", 1.0),
        ("1.2.3", 1.0),
        ("9", 1.5),
        ("1.9", 1.5),
        ("99999999999999999999", 1.5),
        ("$((1/0))", 1.0),
    ],
)
def test_the_timeout_is_held_between_its_bounds(dash_site: Site, replaced: Replace, text: str, seconds: float) -> None:
    """At most 1.5 s, so that the whole stays below two; at least 0.1 s; one second for what is not a number."""
    prefix = replaced({"curl": recording_curl(dash_site.root)})
    assert_harmless(Site(dash_site.root, dash_site.shell, prefix).run(JOBTRAIL_TIMEOUT=text))
    assert max_seconds(dash_site.root) == seconds


def test_the_daemon_is_given_the_time_that_is_set_and_no_more(dash_site: Site) -> None:
    """Nobody answers: the hook ends, and not before that time is over."""
    with SocketServer(dash_site.socket, status=None) as server:
        run = dash_site.run(JOBTRAIL_TIMEOUT="0.7")
    assert_harmless(run)
    assert run.seconds >= 0.7
    assert len(server.requests) == 1
