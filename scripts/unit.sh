#!/usr/bin/env bash
# Unit tests and the tests that run inside a backend: `cargo pgrx test`, which starts a server of its own.
. "$(dirname "$0")/lib.sh"
pg_require
lib=$("$PG_CONFIG" --pkglibdir)
data=$(scratch_dir)-t # also its socket directory, so again a short path

# `cargo pgrx test` copies its own build over the installed extension, into the same file. Unlinking that first
# keeps the old file alive for servers that have loaded it; overwriting it would crash them.
scripts/cluster.sh stop
scripts/install.sh remove

own_dir "$data"
tidy() {
  local pid
  for pid in "$data"/*/postmaster.pid; do
    [ ! -e "$pid" ] || as_pg "$PG_BIN/pg_ctl" stop -m immediate -D "$(dirname "$pid")" >/dev/null || true
  done
  rm -rf "$data"
  # Leave no test build behind, neither for people nor for the next layer.
  scripts/install.sh remove
  [ ! -d "target/package-pg$PG_MAJOR" ] || scripts/install.sh copy >/dev/null
}
trap tidy EXIT

# --runas makes pgrx use sudo for what the caller may not do; as an ordinary user the server runs as that user
runas=(--runas "$PG_USER")
if ! is_root && [ -w "$lib" ]; then
  runas=()
  export USER=$PG_USER
fi
cargo pgrx test "pg$PG_MAJOR" -p "$EXTENSION" "${runas[@]}" --pgdata "$data"
