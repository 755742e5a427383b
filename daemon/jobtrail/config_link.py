"""Settings of the link between nodes and the servers that have the database: of either end."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobtrail.domain.errors import ConfigError, InvalidEvent
from jobtrail.domain.hostlist import expand_nodes

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node reaches the servers that `database.url` names, and what a server lets nodes say.

    The node's files are read anew when they change.
    """

    ca_file: str = ""  # certificates that the servers' are signed by; empty: those that the system trusts
    certificate_file: str = ""  # this node's own; empty shows none
    key_file: str = ""  # its key; empty: in certificate_file
    token_file: str = ""  # holds this node's token; empty shows none
    connect_timeout_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 20.0  # of a whole request
    clusters: tuple[str, ...] = ()  # of a server: that nodes may name; empty: any
    controllers: tuple[str, ...] = ()  # of a server: nodes with slurmctld, or host lists; empty: any

    @property
    def controller_nodes(self) -> frozenset[str]:
        """The nodes that `controllers` names. Raises ConfigError."""
        if not self.controllers:
            return frozenset()
        try:
            # In the environment settings are parted at commas, also at those within brackets.
            return frozenset(expand_nodes("link.controllers", ",".join(self.controllers)))
        except InvalidEvent as error:
            raise ConfigError("`link.controllers`", f"must name nodes, such as ctl1 or ctl[1-2]: {error}") from error


def check_link(link: Link, *, forwards: bool) -> None:
    """Raise ConfigError for what cannot be meant. `forwards`: this daemon is a node that sends to servers."""
    if forwards and link.key_file and not link.certificate_file:
        raise ConfigError("link.key_file", "is the key of a certificate; name that in `link.certificate_file`")
    if any(not name or name != name.strip() for name in link.clusters):
        raise ConfigError("`link.clusters`", "must hold names of clusters, as ClusterName in slurm.conf(5)")
    _ = link.controller_nodes


def left_open(link: Link) -> dict[str, str]:
    """What every node may say to a server that has these settings, by the setting that would bound it."""
    told = {}
    if not link.clusters:
        told["link.clusters"] = "a node may name any cluster"
    if not link.controllers:
        told["link.controllers"] = "a node may speak as slurmctld's hooks, of any job"
    return told
