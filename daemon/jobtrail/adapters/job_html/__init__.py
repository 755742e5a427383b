"""A report as one page of HTML that needs nothing else: no script, no font, no image, no address outside itself.

It is an adapter of its own because two make it: the daemon, which sends it, and the command line, which writes a file.
"""

from jobtrail.adapters.job_html.page import POLICY, render

__all__ = ["POLICY", "render"]
