# shellcheck shell=sh
# The steps that install-node and install-server share. Each looks first and changes only what is not as it should be, so
# that a second run changes nothing; each says what it changes, and with --dry-run says it and does not.
# What the two programs set too is given a value here first.
python=python3
purge=false
source_directory=$(cd "$(dirname "$0")/../.." && pwd)
program=$(basename "$0")
root=
prefix=/opt/jobtrail
dry_run=false
changes=0
parts=

say() { printf '%s\n' "$*"; }
note() { printf '%s: note: %s\n' "$program" "$*" >&2; }
fail() { printf '%s: %s\n' "$program" "$*" >&2; exit 1; }
usage() { printf '%s: %s (see %s --help)\n' "$program" "$*" "$program" >&2; exit 2; }

# The text between the first lines of the program itself.
print_help() { sed -n '2,/^set -eu$/{/^set -eu$/d;s/^# \{0,1\}//;p;}' "$0"; }

# Whether a part of the installation is asked for; none named means all.
wants() { [ -z "$parts" ] || case " $parts " in *" $1 "*) ;; *) return 1 ;; esac; }

# do_it WHAT COMMAND…: say WHAT, and run COMMAND unless this is a dry run.
do_it() {
    what=$1
    shift
    changes=$((changes + 1))
    if $dry_run; then
        say "would $what"
        return 0
    fi
    say "$what"
    "$@" || fail "could not $what"
}

# Of a root in a directory, programs run inside it.
inside() { if [ -n "$root" ]; then chroot "$root" "$@"; else "$@"; fi; }

has_mode() { [ "$(stat -c %a "$1")" = "$2" ]; }

make_directory() { # PATH MODE
    if [ -d "$root$1" ]; then
        has_mode "$root$1" "$2" || do_it "set the mode of $1 to $2" chmod "$2" "$root$1"
    else
        do_it "make $1 ($2)" install -d -m "$2" "$root$1"
    fi
}

# Writing beside the file and renaming: slurmd may run a hook this very moment.
replace_file() { # SOURCE PATH MODE
    install -m "$3" "$1" "$root$2.jobtrail-new" && mv -f "$root$2.jobtrail-new" "$root$2"
}

put_file() { # SOURCE PATH MODE
    if [ -e "$root$2" ] && cmp -s "$1" "$root$2"; then
        has_mode "$root$2" "$3" || do_it "set the mode of $2 to $3" chmod "$3" "$root$2"
    elif [ -e "$root$2" ]; then
        do_it "replace $2 ($3), which was of another release or changed" replace_file "$1" "$2" "$3"
    else
        do_it "write $2 ($3)" replace_file "$1" "$2" "$3"
    fi
}

remove_file() { # PATH
    if [ -e "$root$1" ] || [ -L "$root$1" ]; then do_it "remove $1" rm -f "$root$1"; fi
}

remove_tree() { # PATH
    if [ -d "$root$1" ]; then do_it "remove $1 and all in it" rm -rf --one-file-system "${root:?}$1"; fi
}

# --- checks

check_values() { # ADDRESS DATABASE-URL
    case $1 in *[!0-9A-Za-z.:-]*) usage "--listen $1 is no address" ;; esac
    case $2 in
        '' | postgresql://* | postgres://* | https://*) ;;
        *) usage "--database must begin with postgresql://, or of a node with https:// of a server" ;;
    esac
    case $2 in
        *[\"\'\\\|\&\ ]*) usage "--database holds a quote, backslash, bar, ampersand or blank; write it into the settings yourself" ;;
    esac
}

check_machine() {
    [ "$(id -u)" = 0 ] || fail "needs root"
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); Jobtrail observes Linux machines only"
    case $root in
        '') ;;
        /*) [ -d "$root/etc" ] || fail "--root $root is no system: it has no etc" ;;
        *) usage "--root $root is not an absolute path" ;;
    esac
    case $prefix in
        /*) ;;
        *) usage "--prefix $prefix is not an absolute path" ;;
    esac
    case $prefix in / | /usr | /usr/local | /opt | /etc) usage "--prefix $prefix is not Jobtrail's own" ;; esac
}

check_python() {
    # shellcheck disable=SC2016  # the inner shell expands it
    inside sh -c 'command -v "$0" >/dev/null' "$python" || fail "$python is not there; Python 3.11 or newer is needed (--python)"
    inside "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$(inside "$python" --version 2>&1) is too old; 3.11 or newer is needed (--python /path/to/python3.11)"
    inside "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
}

# --- Jobtrail itself

installed_version() {
    [ -x "$root$prefix/bin/jobtrail" ] || return 0
    inside "$prefix/bin/jobtrail" --version 2>/dev/null | sed 's/^jobtrail //'
}

# What an installation was made of: another lock file or release makes it anew.
fingerprint() (
    cd "$source_directory" || exit
    find requirements/run.txt pyproject.toml daemon/jobtrail hooks/slurm migrations recipes -type f ! -name '*.pyc' -exec cksum {} + |
        sort | cksum
)

install_program() {
    wanted=$(fingerprint)
    stamp=$prefix/.installed-from
    if [ -f "$root$stamp" ] && [ "$(cat "$root$stamp")" = "$wanted" ] && [ -n "$(installed_version)" ]; then return 0; fi
    do_it "make the Python environment $prefix from requirements/run.txt, every package checked by its hash" make_environment
    $dry_run || printf '%s\n' "$wanted" >"$root$stamp"
}

make_environment() {
    # Made of a copy without the repository's leftovers, which the user of a clone may have written as somebody else.
    work=$(mktemp -d "$root/tmp/jobtrail-install.XXXXXX") || return 1
    trap 'rm -rf "$work"' EXIT
    for path in pyproject.toml README.md LICENSE daemon hooks migrations recipes requirements; do
        cp -R "$source_directory/$path" "$work/" || return 1
    done
    from=${work#"$root"}
    inside "$python" -m venv --clear "$prefix" &&
        inside "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
            --require-hashes -r "$from/requirements/run.txt" &&
        inside "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
            --no-build-isolation --no-deps --no-index "$from" &&
        inside "$prefix/bin/jobtrail" --version >/dev/null
    status=$?
    rm -rf "$work"
    trap - EXIT
    return $status
}

# The settings are the administrator's: they are written once and never again.
install_settings() { # ROLE SED-COMMANDS
    file=/etc/jobtrail/jobtrail.yaml
    make_directory /etc/jobtrail 755
    if [ -e "$root$file" ]; then
        keep_settings "$1"
    else
        settings=$(sed "$2" "$source_directory/deploy/jobtrail.yaml")
        do_it "write $file (600)" write_settings
        [ -n "$database" ] || note "set database.url in $file: until then events wait in the spool"
    fi
    if [ -n "$web_config" ] && ! [ -e "$root$web_config" ]; then
        note "$web_config is not there: the daemon does not start without it (docs/security.md says what stands in it)"
    fi
}

# What was asked for and is not done is said, since nobody looks for it.
keep_settings() { # ROLE
    has_mode "$root$file" 600 || note "$file can hold a password and is not 0600"
    if [ -n "$listen$web_config$database${slurmrestd:-}" ] || $insecure; then
        note "$file is there already and stays as it is: what is said here of settings, write into it yourself"
    fi
    case $(sed -n 's/^roles: *\(\[.*\]\).*/\1/p' "$root$file") in
        '' | *"$1"*) ;;
        *) note "$file does not name the role $1; for a machine that is both, write \`roles: [node, server]\`" ;;
    esac
}

# sed's commands for what both programs may be told.
# The daemon refuses to listen where strangers would reach it without TLS, so that is asked for here.
check_exposure() { # ADDRESS WEB-CONFIG INSECURE
    case $2 in '' | /*) ;; *) usage "--web-config $2 must be a path from the root on" ;; esac
    case $2 in *[!0-9A-Za-z./_-]*) usage "--web-config $2 holds a character that is none of a path's usual ones" ;; esac
    case $1 in
        '' | 127.* | localhost | ::1) ;;
        *)
            [ -n "$2" ] || $3 || usage "--listen $1 is reached from other machines: give --web-config FILE with TLS and users (docs/security.md), or --insecure" ;;
    esac
}

exposure_commands() { # WEB-CONFIG INSECURE
    [ -z "$1" ] || printf 's|^  web_config_file: ""  *|  web_config_file: "%s"  |\n' "$1"
    ! $2 || echo 's|^  insecure: false  *|  insecure: true  |'
}

settings_commands() { # ADDRESS DATABASE-URL
    [ -z "$1" ] || printf 's|^  host: 127.0.0.1  *|  host: "%s"  |\n' "$1"
    [ -z "$2" ] || printf 's|^  url: ""  *|  url: "%s"  |\n' "$2"
}

write_settings() { (umask 077 && printf '%s\n' "$settings" >"$root/etc/jobtrail/jobtrail.yaml"); }

install_unit() {
    if ! [ -d "$root/etc/systemd/system" ] && ! [ -d "$root/usr/lib/systemd" ] && ! [ -d "$root/lib/systemd" ]; then
        note "there is no systemd; run \`$prefix/bin/jobtrail serve\` by what starts services here"
        return 0
    fi
    unit=$(mktemp)
    sed "s|^ExecStart=/opt/jobtrail/|ExecStart=$prefix/|" "$source_directory/deploy/systemd/jobtrail.service" >"$unit"
    before=$changes
    make_directory /etc/systemd/system 755
    put_file "$unit" /etc/systemd/system/jobtrail.service 644
    rm -f "$unit"
    put_file "$source_directory/deploy/systemd/jobtrail.socket" /etc/systemd/system/jobtrail.socket 644
    [ -z "$root" ] && [ -d /run/systemd/system ] || return 0
    if [ "$changes" != "$before" ]; then do_it "have systemd read its units anew" systemctl daemon-reload; fi
}

start_unit() {
    if [ -n "$root" ] || ! [ -d /run/systemd/system ]; then
        note "not started: $([ -n "$root" ] && echo "$root is no running system" || echo 'no systemd runs here')"
    elif ! systemctl is-enabled --quiet jobtrail || ! systemctl is-active --quiet jobtrail; then
        do_it "enable and start jobtrail.service" systemctl enable --now --quiet jobtrail
    elif [ "$changes" -gt 0 ]; then
        do_it "restart jobtrail.service" systemctl restart jobtrail
    fi
}

stop_unit() {
    [ -e "$root/etc/systemd/system/jobtrail.service" ] || return 0
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        do_it "stop and disable jobtrail.socket and jobtrail.service" \
            systemctl disable --now --quiet jobtrail.socket jobtrail.service
    fi
    for unit in jobtrail.service jobtrail.socket; do
        remove_file "/etc/systemd/system/$unit"
        remove_file "/etc/systemd/system/multi-user.target.wants/$unit"
        remove_file "/etc/systemd/system/sockets.target.wants/$unit"
    done
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        do_it "have systemd read its units anew" systemctl daemon-reload
    fi
}

remove_program() {
    if [ -d "$root$prefix" ]; then
        [ -e "$root$prefix/.installed-from" ] || fail "$prefix was not made by this program; remove it yourself"
        remove_tree "$prefix"
    fi
}

remove_records() {
    if $purge; then
        remove_tree /var/lib/jobtrail
        remove_tree /etc/jobtrail
    else
        for kept in /etc/jobtrail /var/lib/jobtrail; do
            [ ! -d "$root$kept" ] || say "kept $kept (--purge removes it too)"
        done
    fi
}

tell_end() {
    if [ "$changes" = 0 ]; then
        say "nothing to do: all is as it should be"
    elif $dry_run; then
        say "nothing was changed: this was a dry run"
    fi
}
