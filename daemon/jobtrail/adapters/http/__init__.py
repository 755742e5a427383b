"""The HTTP surface: hooks and events come in through a Unix socket, probes and scrapes also through TCP."""

from jobtrail.adapters.http.api import HttpApi
from jobtrail.adapters.http.reports import HtmlPages
from jobtrail.adapters.http.routes import Services
from jobtrail.adapters.http.settings import Addresses, HttpSettings

__all__ = ["Addresses", "HtmlPages", "HttpApi", "HttpSettings", "Services"]
