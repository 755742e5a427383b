"""The node's end of the link to servers: events and samples go to a server, which has the database login."""

from jobtrail.adapters.server_link.client import ServerLink
from jobtrail.adapters.server_link.security import LinkSecurityEvents
from jobtrail.adapters.server_link.settings import LinkSettings, is_server, server_urls
from jobtrail.adapters.server_link.sinks import LinkEvents, LinkOverRuns, LinkSamples

__all__ = [
    "LinkEvents",
    "LinkOverRuns",
    "LinkSamples",
    "LinkSecurityEvents",
    "LinkSettings",
    "ServerLink",
    "is_server",
    "server_urls",
]
