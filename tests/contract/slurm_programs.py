"""Programs that stand for sacct and sacctmgr: they answer from a file of rows as Slurm 22.05 and 24.11 do (measured).

sacctmgr changes the last run of each job that its `jobid=` names: of a number also those whose array or heterogeneous
job has that id. Slurm 22.05 makes small letters of the text and backticks of quotes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SACCT = """#!{python}
import json, sys
words = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
state = json.load(open({state!r}))
if state["failure"]:
    sys.stderr.write(state["failure"]); sys.exit(1)
wanted = set(words["jobs"].split(","))
end = words["delimiter"]
for row in state["runs"]:
    if wanted & {{row["JobIDRaw"], row["JobID"].split("_")[0].split("+")[0]}}:
        sys.stdout.write("".join(row[name] + end for name in words["format"].split(",")) + "\\n")
"""
SACCTMGR = """#!{python}
import json, sys
state = json.load(open({state!r}))
if state["failure"]:
    sys.stderr.write(state["failure"]); sys.exit(1)
assert sys.argv[1:5] == ["--immediate", "modify", "job", "where"], sys.argv
condition, keyword, change = sys.argv[5:]
assert keyword == "set" and condition.startswith("jobid=") and change.startswith("AdminComment=")
name, text = condition.partition("=")[2], change.partition("=")[2]
for quote in "'\\"":
    text = text.replace(quote, "`")
last = {{}}
for row in state["runs"]:
    if name in (row["JobID"], row["JobIDRaw"], row["JobID"].split("_")[0].split("+")[0]):
        last[row["JobIDRaw"]] = row
for row in last.values():
    row["AdminComment"] = text.lower() if state["small"] else text
if not last:
    sys.stderr.write("sacctmgr: accounting_storage/slurmdbd: acct_storage_p_modify_job: Request didn't affect anything "
                     "or your user doesn't have privilege to perform this action\\n Nothing modified\\n")
    sys.exit(1)
json.dump(state, open({state!r}, "w"))
"""
DENIED = (
    "sacctmgr: error: Your user doesn't have privilege to perform this action\n"
    " Error with request: Access/permission denied\n"
)
DOWN = "sacct: error: Sending PersistInit msg: Connection refused\n"


class SlurmPrograms:
    """Both programs in a directory, and what they know."""

    def __init__(self, directory: Path, *, small_letters: bool) -> None:
        self._state = directory / "state.json"
        self._save(runs=[], failure="", small=small_letters)
        self.sacct, self.sacctmgr = str(directory / "sacct"), str(directory / "sacctmgr")
        for path, text in ((self.sacct, SACCT), (self.sacctmgr, SACCTMGR)):
            Path(path).write_text(text.format(python=sys.executable, state=str(self._state)))
            Path(path).chmod(0o755)

    def add(self, number: int, name: str, *, submitted: int, ended: int | None, comment: str) -> None:
        """Let accounting have one more run."""
        row = {"JobIDRaw": str(number), "JobID": name, "Submit": str(submitted), "AdminComment": comment}
        row["End"] = "Unknown" if ended is None else str(ended)
        self._save(runs=[*self._load()["runs"], row])

    def fail(self, message: str) -> None:
        """Say this and end with exit status 1 from now on; an empty text: answer again."""
        self._save(failure=message)

    def _load(self) -> dict[str, list[dict[str, str]]]:
        return dict(json.loads(self._state.read_text()))

    def _save(self, **changes: object) -> None:
        known = self._load() if self._state.exists() else {}
        self._state.write_text(json.dumps({**known, **changes}))
