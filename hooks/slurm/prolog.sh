#!/bin/sh
hook=prolog
#
# Jobtrail's Slurm hook. prolog.sh, epilog.sh, prolog_slurmctld.sh and epilog_slurmctld.sh are the same script but for
# the line above. Install: copy them anywhere and name them in slurm.conf as Prolog= and Epilog= (slurmd runs these as
# root on each node), PrologSlurmctld= and EpilogSlurmctld= (slurmctld runs these as SlurmUser; they may be left out).
#
# It posts its SLURM_* and GPU environment to the Jobtrail daemon's Unix socket, those of slurmctld over TCP where
# JOBTRAIL_URL says so. When the daemon does not accept the event, the same event goes, under the same id, to a file in
# <spool>/incoming, where the daemon of this machine finds it later.
#
# It never harms a job: slurmd drains the node when a Prolog or Epilog fails, slurmctld requeues the job when its own
# prolog does, and both by default wait for one for ever (slurm.conf(5): Prolog, PrologSlurmctld, PrologEpilogTimeout).
# So every step has a time limit, all of them together stay below two seconds, and the exit status is 0 whatever
# happens. No "set -e", no "set -u", nothing left in the background.
#
# Needs coreutils, grep and curl >= 7.40, and uses logger where there is one. Settings, as KEY=value lines in
# /etc/jobtrail/hook.conf (another file: JOBTRAIL_HOOK_CONF) or as environment variables, which win:
#   JOBTRAIL_SOCKET   the daemon's socket      default /run/jobtrail/hooks.sock
#   JOBTRAIL_SPOOL    the spool directory      default /var/lib/jobtrail/spool
#   JOBTRAIL_TIMEOUT  seconds for the daemon   default 1.0, at least 0.1, at most 1.5
# and for slurmctld's hooks only
#   JOBTRAIL_URL         http://host:port or https://host of a daemon; none: the socket of this machine's
#   JOBTRAIL_TOKEN_FILE  holds the token for it (slurm.hook_token_file of its settings); only SlurmUser need read it

# slurmd gives its hooks no PATH and no locale. In the C locale bytes that are not UTF-8 are characters like any other.
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL
umask 077

# A shell that cannot fork exits by itself, with 2: the EXIT trap turns that into 0. The signals are ignored because an
# interrupted hook would lose its event; it ends by itself soon enough.
trap 'exit 0' EXIT
trap '' HUP INT TERM PIPE

# The variables to forward. They are read from /proc/self/environ, which is grep's own environment as the kernel holds
# it (proc(5)): the bytes that `env -0` would print, without one more process. With -z a record ends at its NUL, so a
# value that holds a newline stays one record.
names='^(SLURM_|SLURMD_|CUDA_|GPU_|ROCR_|ZE_)'

# Sets $value to $1 without its surrounding blanks, its quotes, and (where it has no quotes) a comment behind it.
clean() {
    value=${1#"${1%%[![:space:]]*}"}
    case $value in
        \"*\"*) value=${value#\"} value=${value%%\"*} ;;
        \'*\'*) value=${value#\'} value=${value%%\'*} ;;
        *)
            value=${value%%[[:space:]]#*}
            value=${value%"${value##*[![:space:]]}"}
            ;;
    esac
}

# Reads the file $1 as data: nothing in it is ever expanded or run.
read_conf() {
    while IFS= read -r line || [ -n "$line" ]; do
        clean "${line%%=*}"
        case $line in
            *=*) key=$value ;;
            *) continue ;;
        esac
        clean "${line#*=}"
        case $key in
            JOBTRAIL_SOCKET) socket=$value ;;
            JOBTRAIL_SPOOL) spool=$value ;;
            JOBTRAIL_TIMEOUT) limit=$value ;;
            JOBTRAIL_URL) url=$value ;;
            JOBTRAIL_TOKEN_FILE) token_file=$value ;;
        esac
    done <"$1"
}

# Sets $seconds to $1 milliseconds, as a decimal fraction.
to_seconds() {
    seconds=$(($1 % 1000 + 1000))
    seconds=$(($1 / 1000)).${seconds#1}
}

# Sets $milliseconds from $1 in seconds, held between 100 and 1500; 1000 where $1 is not a number.
to_milliseconds() {
    case $1 in
        '' | . | *[!0-9.]* | *.*.*)
            milliseconds=1000
            return
            ;;
        *.*) fraction=${1#*.}000 ;;
        *) fraction=000 ;;
    esac
    # The 1 in front keeps the shell from reading 080 as an (invalid) octal number.
    milliseconds=$((1${fraction%"${fraction#???}"} - 1000))
    case ${1%%.*} in
        '' | 0) ;;
        1) milliseconds=$((milliseconds + 1000)) ;;
        *) milliseconds=1500 ;;
    esac
    [ "$milliseconds" -le 1500 ] || milliseconds=1500
    [ "$milliseconds" -ge 100 ] || milliseconds=100
}

settings() {
    socket=/run/jobtrail/hooks.sock
    spool=/var/lib/jobtrail/spool
    limit=1.0
    unset url token_file token # one of that name in the environment would be exported, and stay so
    conf=${JOBTRAIL_HOOK_CONF:-/etc/jobtrail/hook.conf}
    if [ -f "$conf" ] && [ -r "$conf" ]; then
        read_conf "$conf"
    fi
    socket=${JOBTRAIL_SOCKET:-$socket}
    spool=${JOBTRAIL_SPOOL:-$spool}
    to_milliseconds "${JOBTRAIL_TIMEOUT:-$limit}"
    case $hook in
        *-slurmctld)
            url=${JOBTRAIL_URL:-$url}
            token_file=${JOBTRAIL_TOKEN_FILE:-$token_file}
            ;;
        *) url='' ;;
    esac
}

# Sets $token to the first line of the token's file; to nothing where that is no token (RFC 6750, section 2.1).
read_token() {
    if [ -f "$token_file" ] && [ -r "$token_file" ]; then
        IFS= read -r token <"$token_file"
    fi
    case $token in
        *[!A-Za-z0-9._~+/=-]*) token='' ;;
    esac
}

# Sets $time to now, as unix seconds with nine decimals. bash 5 knows the time itself, which saves a process. A date(1)
# without %N (busybox) gives whole seconds; no date(1) at all gives an empty time, which curl leaves out of the request.
now() {
    # shellcheck disable=SC3028 # only bash defines it; elsewhere it is empty and date(1) is asked
    time=${BASH_VERSION:+${EPOCHREALTIME}000}
    case $time in
        *.*) ;;
        *) time=$(date +%s.%N) ;;
    esac
    case $time in
        *.*[!0-9]*) time=${time%%.*}.000000000 ;;
    esac
    case $time in
        *[!0-9.]* | *.*.* | '' | .* | *.) time='' ;;
    esac
}

# curl with the options of every way to the daemon; those of this one are its arguments. It prints the HTTP status and
# (since 7.75) its own exit status.
send() {
    curl -q --silent --output /dev/null --write-out '%{http_code} %{exitcode}\n' --noproxy '*' \
        --max-time "$seconds" --data-binary @- --header 'Expect:' \
        --header 'Content-Type: application/octet-stream' \
        --header "Jobtrail-Event-Id: $id" --header "Jobtrail-Event-Time: $time" "$@"
}

# Posts the event and leaves the rest to settle. That is the end of the pipeline and not a step after it because its
# process then starts while curl works.
post() {
    to_seconds "$milliseconds"
    if [ -n "$url" ]; then
        read_token
        post_over_tcp | settle
    else
        grep -zaE "$names" /proc/self/environ |
            send --unix-socket "$socket" "http://localhost/v1/hooks/slurm/$hook" |
            settle
    fi
}

# The token must not be an argument: everybody can read those (proc(5), /proc/PID/cmdline). It goes through a pipe, as a
# line of curl's configuration, and printf is a part of the shell.
post_over_tcp() {
    printf 'header = "Authorization: Bearer %s"\n' "$token" | {
        grep -zaE "$names" /proc/self/environ </dev/null |
            send --config /proc/self/fd/3 --globoff --proto '=http,https' --url "${url%/}/v1/hooks/slurm/$hook"
    } 3<&0
}

# Runs a command and kills it, with all its children, after $1 milliseconds. The signal is KILL because timeout(1) then
# kills itself with the group: with any other it would wait for a child that hangs in the kernel (a dead disk, a lost
# NFS server) as long as that hangs.
limited() {
    to_seconds "$1"
    shift
    timeout -s KILL "$seconds" "$@"
}

# Writes the event into $spool/incoming. The name has a dot in front until its bytes are on disk: the daemon never sees
# half an event, also not after a power cut. The body comes from the same grep of the same shell as the posted one, so
# both are equal to the byte (the order of the variables is the shell's own choice). That grep lives a little longer
# than its reader: its death can never look like the end of the body.
# Returns 0: on disk. 1: kept, but not known to be on disk. 2: not kept.
keep() {
    grep -qzaE "$names" /proc/self/environ || return 2
    case $hook in
        *-slurmctld) mask=027 ;; # the file is SlurmUser's then; the daemon reads it as a member of its group
        *) mask=077 ;;
    esac
    # shellcheck disable=SC2016 # the inner shell expands its own parameters
    limited $((1650 - milliseconds)) grep -zaE "$names" /proc/self/environ |
        limited $((1600 - milliseconds)) sh -c '
            cd -- "$1" || { mkdir -p -- "$1" && cd -- "$1"; } || exit 2
            umask "$5"
            {
                printf "JOBTRAIL_HOOK=%s\0JOBTRAIL_EVENT_ID=%s\0JOBTRAIL_EVENT_TIME=%s\0" "$3" "$2" "$4" && cat
            } >".$2.part" && mv -- ".$2.part" ".$2" || { rm -f -- ".$2.part"; exit 2; }
            sync ".$2" && mv -- ".$2" "$2" && sync .
        ' sh "$spool/incoming" "$id" "$hook" "$time" "$mask"
    kept=$?
    case $kept in
        0 | 2) return $kept ;;
    esac
    # Complete, but the disk is too slow to say so in time: an event that a power cut could take is better than none.
    # shellcheck disable=SC2016
    limited 60 sh -c 'cd -- "$1" && { [ -e "$2" ] || mv -- ".$2" "$2"; }' sh "$spool/incoming" "$id" || return 2
    return 1
}

log() {
    case $SLURM_JOB_ID in
        '' | *[!0-9]*) job=unknown ;;
        *) job=$SLURM_JOB_ID ;;
    esac
    limited 70 logger -t jobtrail-hook -p "daemon.$1" -- \
        "$hook of job $job: event $id not accepted (HTTP ${status:-none}, curl exit ${curl_status:-unknown}); $2"
}

# A 2xx answer means that the daemon has the event on disk. On any other, and on none, the event is kept here.
settle() {
    IFS=' ' read -r status curl_status
    case $status in
        2[0-9][0-9]) return ;;
    esac
    keep
    case $? in
        0) log warning "kept in $spool/incoming" ;;
        1) log warning "kept in $spool/incoming, but the disk did not confirm it in time" ;;
        *) log err "LOST: could not be written to $spool/incoming" ;;
    esac
}

main() {
    settings
    IFS= read -r id </proc/sys/kernel/random/uuid
    now
    post
}

# The redirections also serve a hook that was started with these three closed.
main </dev/null >/dev/null 2>&1
exit 0
