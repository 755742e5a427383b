"""Exit codes, the same for every command but `exec`, which passes on the code of what it ran."""

from __future__ import annotations

OK = 0
FAILED = 1  # what was asked for could not be done, or a check found differences
USAGE = 2  # the command line or a setting is wrong
UNREACHABLE = 3  # the daemon or the database cannot be reached
NOT_FOUND = 4  # no such job, benchmark run, recipe or metric
EXEC_FAILED = 125  # `exec` itself could not begin
NOT_EXECUTABLE = 126  # `exec`: the command was found and cannot be run
COMMAND_NOT_FOUND = 127  # `exec`: there is no such command
SIGNALLED = 128  # `exec`: plus the signal that ended the command
