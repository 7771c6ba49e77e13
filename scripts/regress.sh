#!/usr/bin/env bash
# Golden-file tests against the running scratch cluster, with the programs PostgreSQL's own tests use.
#   regress.sh regress [names]      tests/pg_regress/{sql,expected}, in the database usher_regress
#   regress.sh isolation [names]    tests/isolation/{specs,expected}, in usher_isolation
# Without names: those in the directory's `schedule` file, or all when it has none. A `setup.sql` there is run in
# the new database first. What the tests wrote is below target/regress or target/isolation.
. "$(dirname "$0")/lib.sh"
pg_require
kind=${1:-}
shift || true

case $kind in
  regress) dir=tests/pg_regress database=usher_regress program=regress/pg_regress files='sql/*.sql' ;;
  isolation) dir=tests/isolation database=usher_isolation program=isolation/pg_isolation_regress files='specs/*.spec' ;;
  *) die "usage: scripts/regress.sh regress|isolation [test names]" ;;
esac
output=$ROOT/target/$kind

# --pgxs names …/pgxs/src/makefiles/pgxs.mk; the test programs are its neighbours
program=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/$program
[ -x "$program" ] || die "$program is not there: install postgresql-server-dev-$PG_MAJOR"
[ -d "$dir" ] || die "there is no $dir"

eval "$(scripts/cluster.sh env)"
psql=("$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1)

# Roles are of the whole cluster: what earlier runs of other layers, the demo or the benchmarks left would show in the
# golden files. The cluster is ours alone.
"${psql[@]}" <<'EOF'
SET client_min_messages = warning;
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE 'usher\_%' \gexec
DROP ROLE IF EXISTS usher_live_events, usher_platform;
EOF

# The database is made here, not by pg_regress, which cannot drop one that is in use; the settings are its own.
"${psql[@]}" <<EOF
SET client_min_messages = warning;
DROP DATABASE IF EXISTS $database WITH (FORCE);
CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
ALTER DATABASE $database SET lc_messages = 'C';
ALTER DATABASE $database SET lc_monetary = 'C';
ALTER DATABASE $database SET lc_numeric = 'C';
ALTER DATABASE $database SET lc_time = 'C';
ALTER DATABASE $database SET bytea_output = 'hex';
ALTER DATABASE $database SET timezone_abbreviations = 'Default';
EOF
[ ! -e "$dir/setup.sql" ] || "${psql[@]}" -d "$database" -f "$dir/setup.sql" >/dev/null

tests=("$@")
if [ ${#tests[@]} -eq 0 ] && [ -e "$dir/schedule" ]; then
  tests=("--schedule=$dir/schedule")
elif [ ${#tests[@]} -eq 0 ]; then
  for file in "$dir"/$files; do
    [ ! -e "$file" ] || tests+=("$(basename "${file%.*}")")
  done
fi
[ ${#tests[@]} -gt 0 ] || die "no tests in $dir"

# Autovacuum on its rounds and usher.setup() may wait for each other's locks: whose turn it is would show in a golden file.
naptime() { "${psql[@]}" -c "ALTER SYSTEM $1" -c "SELECT pg_reload_conf()" >/dev/null; }
trap 'naptime "RESET autovacuum_naptime"' EXIT
naptime "SET autovacuum_naptime = '1h'"

rm -rf "$output"
mkdir -p "$output"
code=0
"$program" --inputdir="$dir" --outputdir="$output" --bindir="$PG_BIN" --dbname="$database" --use-existing \
  --host="$PGHOST" --port="$PGPORT" --user="$PGUSER" "${tests[@]}" || code=$?
if [ -s "$output/regression.diffs" ]; then
  say "---- $output/regression.diffs"
  # the mark in front keeps a test's output from being counted as a result
  head -n 300 "$output/regression.diffs" | sed 's/^/| /'
fi
exit "$code"
