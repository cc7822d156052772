#!/usr/bin/env bash
# PostgreSQL for the tests: a throw-away cluster that lives as long as one command.
# Usage: scripts/postgres.sh run COMMAND [ARG…]           run it with a new cluster; its URL is in ICS_TEST_POSTGRES
#        scripts/postgres.sh run-if-there COMMAND [ARG…]  the same, but without PostgreSQL run the command and say so;
#                                                         a server named by ICS_TEST_POSTGRES already is taken as it is
#        scripts/postgres.sh where                        print the folder with the server's programs
#        scripts/postgres.sh install                      install the server if it is missing (Debian, Ubuntu; as root)
set -euo pipefail

# The signal to end with, once there is one.
pending=''
oldest=15 # Tests ask for databases that sort text as a language does; older servers cannot choose that for a database.

say() { echo "postgres.sh: $*" >&2; }
# A step that failed because a signal reached it too is no error to report.
die() { end_if_asked; say "$*"; exit 1; }
die_without() { die "PostgreSQL $oldest or later was not found. Install it: scripts/postgres.sh install"; }

# The first folder that holds a whole server that is new enough.
find_programs() {
  local folder version
  while IFS= read -r folder; do
    [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] && [ -x "$folder/postgres" ] || continue
    version=$("$folder/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
    [ "$version" -ge "$oldest" ] && printf '%s\n' "$folder" && return
  done < <(candidates)
  return 1
}

# Folders that exist or not, best first: Debian and Homebrew keep server programs out of PATH.
candidates() {
  local program
  program=$(command -v initdb) && dirname "$program"
  command -v pg_config >/dev/null && pg_config --bindir
  printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin {/opt/homebrew,/usr/local}/opt/postgresql@*/bin |
    sort -rV 2>/dev/null
}

install_server() {
  if find_programs >/dev/null; then return; fi
  local want="PostgreSQL $oldest or later is not installed"
  if [ "$(uname -s)" = Darwin ]; then die "$want. Install it: brew install postgresql@17"; fi
  command -v apt-get >/dev/null || die "$want. Install it as this system does: dnf install postgresql-server, say."
  [ "$(id -u)" = 0 ] || die "$want, and installing needs root: sudo scripts/postgres.sh install"
  say "installing PostgreSQL"
  apt update
  apt install -y --no-install-recommends postgresql-common
  # The server's package would make and start a cluster of its own, where people expect a real one.
  local settings=/etc/postgresql-common/createcluster.d/zz-icl-select-tests.conf
  mkdir -p "$(dirname "$settings")"
  # shellcheck disable=SC2064 # the local name is gone when the trap runs
  trap "rm -f '$settings'" EXIT
  echo 'create_main_cluster = off' >"$settings"
  apt install -y --no-install-recommends postgresql
  find_programs >/dev/null || die "apt-get has none that is new enough: $want. See https://www.postgresql.org/download"
}

# Silent unless it fails.
apt() {
  local output
  if ! output=$(DEBIAN_FRONTEND=noninteractive apt-get -q "$@" 2>&1); then
    printf '%s\n' "$output" >&2
    die "apt-get $1 failed; what it said stands above."
  fi
}

# PostgreSQL refuses to run as root.
as_owner() {
  if [ -n "$owner" ]; then setpriv --reuid "$owner" --regid "$group" --init-groups -- "$@"; else "$@"; fi
}

choose_owner() {
  owner=
  [ "$(id -u)" = 0 ] || return 0
  command -v setpriv >/dev/null ||
    die "PostgreSQL refuses to run as root, and setpriv (util-linux) is not here. Call this as an ordinary user."
  owner=nobody
  if id postgres >/dev/null 2>&1; then owner=postgres; fi
  group=$(id -g "$owner")
}

make_folder() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/ics-postgres.XXXXXX")
  trap clean_up EXIT
  end_if_asked
}

# Only those who may enter the folder reach the socket, so no password is needed, and no port is taken.
start_cluster() {
  choose_owner
  case "$work" in
    *[!A-Za-z0-9/._-]*) die "the path $work does not fit into a URL. Set TMPDIR to a plainer folder, such as /tmp." ;;
  esac
  if [ -n "$owner" ]; then chown "$owner" "$work"; fi
  cd "$work"
  as_owner test -w "$work" || die "user $owner cannot reach $work. Set TMPDIR to a folder open to all, such as /tmp."
  as_owner "$programs/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >"$work/log" 2>&1 ||
    fail_start
  # Without fsync a power cut loses data and nothing else does; everything else stays as a real server has it.
  as_owner tee -a "$work/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
fsync = off
CONF
  end_if_asked
  # Killed halfway, pg_ctl would leave a server behind that nobody knows of.
  (trap '' TERM HUP && as_owner "$programs/pg_ctl" start -s -w -D "$work/data" -l "$work/data/log") \
    >>"$work/log" 2>&1 || fail_start
  end_if_asked
  cd "$OLDPWD"
}

fail_start() {
  end_if_asked
  tail -n 20 "$work/log" "$work/data/log" >&2 2>/dev/null || true
  die "PostgreSQL in $programs did not start; what it said stands above."
}

clean_up() {
  trap '' INT TERM HUP
  cd /
  local pid="$work/data/postmaster.pid"
  if [ -f "$pid" ] && ! as_owner "$programs/pg_ctl" stop -s -w -m immediate -D "$work/data" >"$work/log" 2>&1; then
    # One that was ending by itself is gone by now.
    if [ -f "$pid" ]; then cat "$work/log" >&2; say "PostgreSQL did not stop: process $(head -n 1 "$pid")"; fi
  fi
  # A server that was interrupted while it started may still write its last lines.
  rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
}

# A signal is noted until the command runs, then passed on to it; this script ends only where it can clean up.
watch_signals() {
  child='' woken=''
  trap 'on_signal INT' INT
  trap 'on_signal TERM' TERM
  trap 'on_signal HUP' HUP
}

on_signal() {
  pending=$1 woken=1
  if [ -n "$child" ]; then pass_on; fi
}

pass_on() {
  if [ "$pending" = INT ] && [ -e "$work/hears" ] && in_foreground; then return; fi
  until [ -e "$work/hears" ] || ! kill -0 "$child" 2>/dev/null; do sleep 0.01; done
  kill -"$pending" "$child" 2>/dev/null || true
}

end_if_asked() { [ -z "$pending" ] || exit $((128 + $(kill -l "$pending"))); }

# Run the command and end as it ends. It runs in the background because bash acts on a signal only between commands, or
# in wait; what bash starts there is deaf to Ctrl-C until told otherwise.
supervise() {
  local status
  end_if_asked
  (trap - INT TERM HUP && : >"$work/hears" && exec "$@") <&0 &
  child=$!
  if [ -n "$pending" ]; then pass_on; fi
  while :; do
    woken=''
    wait "$child" && status=0 || status=$?
    [ -z "$woken" ] || continue
    # A signal reached both together, and bash lost how the command ended.
    if [ "$status" = -1 ]; then end_if_asked; fi
    return "$status"
  done
}

# A terminal sends its own Ctrl-C to the command too; a second one would cut short how it cleans up.
in_foreground() {
  case "$(ps -o stat= -p $$ 2>/dev/null)" in *+*) ;; *) return 1 ;; esac
}

run() {
  local action="$1" status=0
  shift
  watch_signals
  programs=$(find_programs) || programs=''
  end_if_asked
  [ -n "$programs" ] || [ "$action" = run-if-there ] || die_without
  make_folder
  if [ -n "$programs" ]; then
    # Settings of another server must not leak into this one, nor into connections to it.
    unset "${!PG@}"
    start_cluster
    export ICS_TEST_POSTGRES="postgresql+psycopg://postgres@/postgres?host=$work"
  fi
  supervise "$@" || status=$?
  if [ -z "$programs" ]; then
    say "PostgreSQL $oldest or later was not found: tests on it were skipped. To have it: scripts/postgres.sh install"
  fi
  exit "$status"
}

main() {
  local action="${1:-}"
  [ $# -eq 0 ] || shift
  case "$action" in
    where) find_programs || die_without ;;
    install) install_server ;;
    run | run-if-there)
      [ $# -gt 0 ] || die "which command? scripts/postgres.sh $action COMMAND [ARG…]"
      if [ "$action" = run-if-there ] && [ -n "${ICS_TEST_POSTGRES:-}" ]; then exec "$@"; fi
      run "$action" "$@"
      ;;
    *) sed -n '2,7s/^# //p' "$0" >&2; exit 2 ;;
  esac
}

main "$@"
