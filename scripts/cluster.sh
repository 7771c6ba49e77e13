#!/usr/bin/env bash
# The scratch cluster: a PostgreSQL of its own for the demo, the tests and you. Its data, log and socket are in
# one short directory below /tmp (or USHER_HOME); it listens on no network port.
#   cluster.sh start | stop [fast|immediate] | restart | destroy | status
#   cluster.sh psql [arguments]     start it and open psql in it
#   cluster.sh env                  the lines a shell or a program needs to reach it
#   cluster.sh standby FROM         make it, not started yet, a streaming standby of the running scratch cluster in FROM
#   cluster.sh upgrade FROM BIN     make it out of the stopped scratch cluster in FROM by pg_upgrade; BIN: its programs
#   USHER_PRELOAD=''                start without the extension preloaded, or with what is named
#   USHER_FSYNC=off                 do not wait for the disk: the tests kill processes and no machine, and after each kill the server would
#                                   wait seconds for every file of every database. The bench and the demo do wait.
. "$(dirname "$0")/lib.sh"
pg_detect
[ -n "$PG_MAJOR" ] || { [ "${1:-}" = destroy ] && exit 0; } || die "no PostgreSQL found: run 'make deps' first"

HOME_DIR=${USHER_HOME:-$(scratch_dir)}
DATA=$HOME_DIR/data
LOG=$HOME_DIR/log
PORT=54329 # names the socket file, nothing else
PRELOAD=${USHER_PRELOAD-$EXTENSION}
# Beside pg_usher as many servers have it, Supabase's too: what it keeps of statements is searched by tests.
if [ -z "${USHER_PRELOAD+set}" ] && [ -e "$("$PG_CONFIG" --pkglibdir)/pg_stat_statements.so" ]; then
  PRELOAD=$EXTENSION,pg_stat_statements
fi

pid_file() { sed -n 1p "$DATA/postmaster.pid" 2>/dev/null; }
ready() { "$PG_BIN/pg_isready" -q -h "$HOME_DIR" -p "$PORT"; }

# pg_ctl takes a killed postmaster for a running one until somebody has reaped it, which in a container without
# an init process takes its time; so this looks at the process itself.
running() {
  local pid
  pid=$(pid_file) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] && ! zombie "$pid"
}
zombie() { grep -s '^State:[[:space:]]*Z' "/proc/$1/status" >/dev/null; }

# After a kill -9 (the tests do that) the postmaster, and then its children, need a moment to be gone.
await_clear_state() {
  local try pid
  for try in {1..50}; do
    pid=$(pid_file) || return 0
    if running; then
      ! ready || return 0
    elif ! zombie "$pid"; then
      return 0
    fi
    sleep 0.2
  done
  running || rm -f "$DATA/postmaster.pid" # never reaped: its number means nothing any more
}

settings() {
  cat <<EOF
# written by scripts/cluster.sh at every start; changes made here are lost
listen_addresses = ''
unix_socket_directories = '$HOME_DIR'
port = $PORT
shared_preload_libraries = '$PRELOAD'
usher.databases = 'postgres'
pg_stat_statements.track = all
max_connections = 60
max_worker_processes = 24
max_prepared_transactions = 8
shared_buffers = 256MB
max_wal_size = 2GB
fsync = ${USHER_FSYNC:-on}
logging_collector = off
log_line_prefix = '%m [%p] %d '
EOF
}

create() {
  own_dir "$HOME_DIR"
  [ ! -e "$DATA" ] || return 0
  # so that a mistyped USHER_HOME never gets a database put into it, nor is destroyed later
  [ -z "$(ls -A "$HOME_DIR")" ] || die "$HOME_DIR has other files in it; choose an empty or new directory as USHER_HOME"
  as_pg "$PG_BIN/initdb" -D "$DATA" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
  as_pg sh -c "echo \"include 'usher.conf'\" >>'$DATA/postgresql.conf'"
}

# Writes the settings; succeeds when they differ from those the server was started with.
write_settings() {
  [ "$(as_pg cat "$DATA/usher.conf" 2>/dev/null)" = "$(settings)" ] && return 1
  settings | as_pg sh -c "cat >'$DATA/usher.conf'"
}

start() {
  local library reason='' try
  library=$("$PG_CONFIG" --pkglibdir)/$EXTENSION.so
  [ -z "$PRELOAD" ] || [ -e "$library" ] || die "the extension is not installed for PostgreSQL $PG_MAJOR yet: run 'make install'"
  create
  [ "$(as_pg cat "$DATA/PG_VERSION")" = "$PG_MAJOR" ] ||
    die "$DATA was made by another PostgreSQL version; remove it with: scripts/cluster.sh destroy"
  ! write_settings || reason="its settings changed"
  await_clear_state
  if running; then
    [ ! "$library" -nt "$DATA/postmaster.pid" ] || reason="the extension is newer than the server"
    if [ -z "$reason" ]; then
      say "scratch cluster: already running in $HOME_DIR"
      return
    fi
    say "scratch cluster: restarting, $reason"
    stop fast
  fi
  # A long patience: after a crash all files are flushed first, which may take a busy disk minutes.
  for try in 1 2 3 4 5; do
    if as_pg "$PG_BIN/pg_ctl" start -D "$DATA" -l "$LOG" -w -t 600 >/dev/null </dev/null; then
      say "scratch cluster: PostgreSQL $PG_MAJOR running in $HOME_DIR"
      return
    fi
    as_pg tail -n 5 "$LOG" | grep -E 'shared memory block|lock file' >/dev/null || break
    say "old server processes are still ending, trying again ($try)"
    sleep 2
  done
  as_pg tail -n 25 "$LOG" >&2
  die "the scratch cluster did not start; its log is $LOG"
}

# Both server processes that pg_upgrade starts load the extension, as they would in real life.
upgrade() {
  local from=$1 bin=$2
  [ ! -e "$DATA" ] || die "$HOME_DIR has a cluster already"
  create
  write_settings || true
  as_pg env -C "$DATA" "$PG_BIN/pg_upgrade" --old-bindir "$bin" --new-bindir "$PG_BIN" --old-datadir "$from/data" --new-datadir "$DATA" \
    --socketdir "$HOME_DIR" --username postgres
  as_pg rm -f "$DATA/delete_old_cluster.sh"
}

# Its settings are written at its start; where its primary is, pg_basebackup writes down.
standby() {
  local from=$1
  [ ! -e "$DATA" ] || die "$HOME_DIR has a cluster already"
  own_dir "$HOME_DIR"
  as_pg "$PG_BIN/pg_basebackup" -h "$from" -p "$PORT" -U postgres -D "$DATA" -R -X stream -c fast --no-sync
}

stop() {
  if running; then
    as_pg "$PG_BIN/pg_ctl" stop -D "$DATA" -m "$1" -w -t 300 >/dev/null
    say "scratch cluster: stopped"
  else
    say "scratch cluster: not running"
  fi
}

destroy() {
  [ -d "$HOME_DIR" ] || return 0
  # One whose making was cut off has its two entries, and nothing else.
  [ -e "$DATA/PG_VERSION" ] || ! ls -A "$HOME_DIR" | grep -qvxE 'data|log' || die "$HOME_DIR does not look like a scratch cluster; not removed"
  stop immediate
  rm -rf "$DATA" "$LOG" "$HOME_DIR"/.s.PGSQL.* "$HOME_DIR"/*.killed
  rmdir "$HOME_DIR" 2>/dev/null || say "$HOME_DIR has other files in it and stays"
}

# %q: a path with a space in it must survive the shell's eval
show_env() {
  printf 'export %s=%q\n' PGHOST "$HOME_DIR" PGPORT "$PORT" PGUSER postgres PGDATABASE postgres \
    USHER_PGBIN "$PG_BIN" USHER_DATA "$DATA" USHER_LOG "$LOG" USHER_CLUSTER "$ROOT/scripts/cluster.sh" USHER_OLD_PGBIN "$(older)" USHER_FSYNC "$(fsync)"
}

# What it was started with last, so that who starts it again from within a test keeps it.
fsync() { as_pg sed -n 's/^fsync = //p' "$DATA/usher.conf" 2>/dev/null || true; }

# An older PostgreSQL that has this very version of the extension, to be upgraded from; nothing when there is none.
older() {
  local major config version
  version=$(sed -nE 's/^version *= *"([0-9.]+)"/\1/p' Cargo.toml | head -n 1)
  for major in $MAJORS; do
    [ "$major" -lt "$PG_MAJOR" ] || return 0
    config=/usr/lib/postgresql/$major/bin/pg_config
    if [ -x "$config" ] && [ -e "$("$config" --pkglibdir)/$EXTENSION.so" ] &&
      grep -sqxF "default_version = '$version'" "$("$config" --sharedir)/extension/$EXTENSION.control"; then
      dirname "$config"
      return 0
    fi
  done
}

case ${1:-} in
  start) start ;;
  stop) stop "${2:-fast}" ;;
  restart)
    stop fast
    start
    ;;
  destroy) destroy ;;
  status) if running; then say "running in $HOME_DIR"; else say "not running" && exit 3; fi ;;
  psql)
    shift
    start >/dev/null
    eval "$(show_env)"
    exec "$PG_BIN/psql" "$@"
    ;;
  env) show_env ;;
  standby) standby "$2" ;;
  upgrade) upgrade "$2" "$3" ;;
  *) die "usage: scripts/cluster.sh start|stop|restart|destroy|status|psql|env|standby|upgrade" ;;
esac
