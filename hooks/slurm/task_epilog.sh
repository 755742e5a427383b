#!/bin/sh
#
# Jobtrail's hook for the end of a task. Install: copy it anywhere on the node and name it as TaskEpilog= in slurm.conf.
#
# It asks the daemon for one more look at the job's counters, which at this moment are still there: the job's cgroup is
# gone before the Epilog runs. It reports nothing, so nothing is lost when the daemon does not answer.
#
# slurmstepd runs it as the job's user, with the user's whole environment (slurm.conf(5), TaskEpilog). It sends no part
# of that but the numbers that Slurm gave to job, step and task, and the daemon believes only who the kernel says it is.
# It prints nothing, takes less than a second at the very worst, and its exit status is 0 whatever happens.
#
# Needs curl >= 7.40. Settings, as KEY=value lines in /etc/jobtrail/hook.conf where users can read it (another file:
# JOBTRAIL_HOOK_CONF) or as an environment variable, which wins:
#   JOBTRAIL_POKE_SOCKET  the daemon's socket for this, /run/jobtrail/poke.sock

# What users load for their programs (libraries, an odd curl, a shell's start-up file) is not for this one.
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT BASH_ENV ENV OPENSSL_CONF SSLKEYLOGFILE
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL
trap 'exit 0' EXIT
trap '' HUP INT TERM PIPE

# Prints $1=$2 as a record when $2 is a number; anything else was not given by Slurm.
record() {
    case $2 in
        '' | *[!0-9]*) ;;
        *) printf '%s=%s\0' "$1" "$2" ;;
    esac
}

# Sets $socket to the value of its last line in the file $1; nothing in it is ever expanded or run.
read_conf() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            JOBTRAIL_POKE_SOCKET=*) socket=${line#*=} ;;
        esac
    done <"$1"
    socket=${socket%%[[:space:]]#*}
    socket=${socket%"${socket##*[![:space:]]}"}
    case $socket in
        \"*\" | \'*\') socket=${socket#?} socket=${socket%?} ;;
    esac
}

main() {
    # One task of a step on each node is enough.
    [ "${SLURM_LOCALID:-0}" = 0 ] || return
    socket=
    conf=${JOBTRAIL_HOOK_CONF:-/etc/jobtrail/hook.conf}
    if [ -f "$conf" ] && [ -r "$conf" ]; then
        read_conf "$conf"
    fi
    socket=${JOBTRAIL_POKE_SOCKET:-${socket:-/run/jobtrail/poke.sock}}
    [ -S "$socket" ] || return
    {
        record SLURM_JOB_ID "$SLURM_JOB_ID"
        record SLURM_JOBID "$SLURM_JOBID"
        record SLURM_STEP_ID "$SLURM_STEP_ID"
        record SLURM_NODEID "$SLURM_NODEID"
        record SLURM_PROCID "$SLURM_PROCID"
        record SLURM_LOCALID "$SLURM_LOCALID"
    } | curl -q --silent --output /dev/null --noproxy '*' --max-time 0.8 --unix-socket "$socket" --data-binary @- \
        --header 'Expect:' --header 'Content-Type: application/octet-stream' \
        http://localhost/v1/hooks/slurm/task-epilog
}

main </dev/null >/dev/null 2>&1
exit 0
