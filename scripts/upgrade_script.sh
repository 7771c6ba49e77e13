#!/usr/bin/env bash
# Writes sql/pg_usher--A--B.sql, which ALTER EXTENSION pg_usher UPDATE runs: what a new installation of the present
# version B has and one of version A has not. Both are created in the scratch cluster and compared by their catalogs, so
# nothing is forgotten; the tables are not members of the extension and are brought along by usher.setup().
#   upgrade_script.sh A     needs the present version installed (make install) and tests/upgrade/A/pg_usher--A.sql
# What cannot be read from the catalog (a new role, a function that something depends on) is written into the file by
# hand, between its two marks; it is kept when the file is written again.
. "$(dirname "$0")/lib.sh"
pg_require
from=${1:-}
[ -e "tests/upgrade/$from/$EXTENSION--$from.sql" ] || die "usage: scripts/upgrade_script.sh <released version>, one of: $(ls tests/upgrade | grep -E '^[0-9]' | paste -sd' ')"
to=$(sed -nE 's/^version *= *"([0-9.]+)"/\1/p' Cargo.toml | head -n 1)
[ "$from" != "$to" ] || die "the present version is $to: there is nothing to upgrade to"
target=sql/$EXTENSION--$from--$to.sql
work=$(mktemp -d)
old_db=usher_script_old new_db=usher_script_new

scripts/install.sh check || die "the installed extension is not the built one: run 'make install'"
scripts/cluster.sh start
eval "$(scripts/cluster.sh env)"
psql=("$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -c "SET client_min_messages = warning")
tidy() {
  for database in "$old_db" "$new_db"; do "${psql[@]}" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" || true; done
  scripts/install.sh old-remove
  rm -rf "$work"
}
trap tidy EXIT
scripts/install.sh old-add

create() { # create <database> <version>
  "${psql[@]}" -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1 TEMPLATE template0"
  "${psql[@]}" -d "$1" -c "CREATE EXTENSION $EXTENSION VERSION '$2'" >/dev/null
}
create "$old_db" "$from"
create "$new_db" "$to"
# a pipe to the postgres user's server would do too; a file can be looked at when something is wrong
"${psql[@]}" -d "$old_db" -f scripts/upgrade_members.sql -c "COPY members TO STDOUT" >"$work/old"
{
  cat scripts/upgrade_members.sql
  echo "CREATE TEMP TABLE old_members (LIKE members);"
  echo "COPY old_members FROM STDIN;"
  cat "$work/old"
  echo '\.'
  cat scripts/upgrade_difference.sql
} | "${psql[@]}" -d "$new_db" -f - >"$work/difference"

begin_mark='-- By hand, because the catalog cannot tell it:'
end_mark='-- The rest is written by scripts/upgrade_script.sh.'
kept=$([ ! -e "$target" ] || sed -n "\\|^$begin_mark\$|,\\|^$end_mark\$|p" "$target" | sed '1d;$d')
{
  echo "-- pg_usher $from to $to; ALTER EXTENSION pg_usher UPDATE runs it. The tables follow by SELECT usher.setup()."
  echo '\echo Use "ALTER EXTENSION pg_usher UPDATE" to load this file. \quit'
  echo
  echo "$begin_mark"
  [ -z "$kept" ] || printf '%s\n' "$kept"
  echo "$end_mark"
  cat "$work/difference"
} >"$work/script"
if cmp -s "$work/script" "$target"; then
  say "$target is up to date"
else
  cp "$work/script" "$target"
  say "$target is written; read it, then run 'make install' and the test 'upgrade'"
fi
! grep -n '^-- NOT WRITTEN' "$target" || die "these objects are of a kind that this script does not know: write them by hand"
