"""What the HTTP surface needs to know, and where it ended up listening."""

from __future__ import annotations

import msgspec


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sockets, limits and who is trusted."""

    host: str
    port: int  # 0 takes a free one
    socket: str  # path of the Unix socket
    node: str  # node of JSON events that name none
    target_port: int = 0  # on which Prometheus finds the nodes' daemons; 0 is unknown
    poke_socket: str = ""  # path of the Unix socket open to all users; empty opens none
    read_token_file: str = ""  # holds the token of those who read of jobs over TCP; empty refuses them
    write_token_file: str = ""  # holds the token of those who decide about benchmarks over TCP; empty refuses them
    hook_token_file: str = ""  # holds the token of slurmctld's hooks over TCP; empty refuses them
    admin_token_file: str = ""  # holds the token of those who look after the daemon; empty refuses them over TCP
    tokens_file: str = ""  # names, scopes and digests of more tokens; empty: none
    web_config_file: str = ""  # TLS and users in the format of Prometheus; empty: neither
    client_crl_file: str = ""  # revoked client certificates, PEM; empty: none are
    insecure: bool = False  # listen beyond loopback without TLS, or open to strangers
    readers_group: str = ""  # its members read of all jobs on the Unix sockets; empty: nobody more
    account_readers: tuple[str, ...] = ()  # GROUP:ACCOUNT, whose members read of all jobs of that account
    socket_group: str = ""  # group that may connect beside root; empty keeps the daemon's own
    trusted_uids: frozenset[int] = frozenset()  # beside root and the daemon's own uid: Slurm's user
    local_scheduler: bool = False  # anybody who can connect may report local jobs, as themselves
    cluster: str = ""  # cluster of JSON events about Slurm jobs that name none; empty: they must
    local_cluster: str = "local"
    proc_root: str = "/proc"
    cgroup_root: str = "/sys/fs/cgroup"
    max_body_bytes: int = 1_048_576
    header_timeout_seconds: float = 5.0  # also how long a connection may idle
    body_timeout_seconds: float = 5.0
    answer_timeout_seconds: float = 10.0  # how long a client may take to read an answer
    max_connections: int = 256  # over TCP
    max_local_connections: int | None = None  # on each Unix socket; None: as many as over TCP

    @property
    def local(self) -> HttpSettings:
        """Those of a Unix socket."""
        most = self.max_local_connections
        return self if most is None else msgspec.structs.replace(self, max_connections=most)


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon listens."""

    socket: str
    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The TCP address as a URL without a trailing slash."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}://{self.host}:{self.port}"
