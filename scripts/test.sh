#!/usr/bin/env bash
# All tests, in layers; a failing layer does not stop the next one. The last line is the sum.
#   LAYERS="unit regress isolation clients"     which layers to run
#   PG=17                                       on PostgreSQL 17, whatever else is there; see scripts/lib.sh
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/steps.sh"
. "$(dirname "$0")/counts.sh"
LAYERS=${LAYERS:-unit regress isolation clients}
for name in $LAYERS; do
  case $name in
    unit | regress | isolation | clients) ;;
    *) die "LAYERS: there is no layer '$name', only unit, regress, isolation and clients" ;;
  esac
done

total_passed=0
total_failed=0
reasons=() # what failed and why, repeated at the end
report() { # report <layer> "<passed> <failed>" [time]
  local passed failed
  read -r passed failed <<<"$2"
  total_passed=$((total_passed + passed))
  total_failed=$((total_failed + failed))
  say "      $1 on PostgreSQL $PG_MAJOR: $passed passed, $failed failed${3:+ ($3)}"
}
finish() {
  say
  [ ${#reasons[@]} -eq 0 ] || printf '%s\n' "${reasons[@]}" ""
  say "$total_passed passed, $total_failed failed"
  [ "$total_failed" -eq 0 ]
  exit
}

# layer <name> <title> <usual time> <counting function> <command…>
layer() {
  local name=$1 title=$2 usual=$3 count=$4 log=$LOGS/test-$1-pg$PG_MAJOR.log begin=$SECONDS code=0 counts
  shift 4
  announce "$title (usually $usual)"
  mkdir -p "$LOGS"
  "$@" >"$log" 2>&1 </dev/null || code=$?
  counts=$(settle "$code" "$("$count" <"$log")")
  report "$name" "$counts" "$(fmt_time $((SECONDS - begin)))"
  [ "${counts#* }" -eq 0 ] || show_failure "$name" "$log"
}

show_failure() {
  local diffs=target/$1/regression.diffs
  reasons+=("$1 on PostgreSQL $PG_MAJOR failed:" "$(failures <"$2" | sed 's/^/  /')")
  say "      the end of $2:"
  tail -n 25 "$2" | sed 's/^/      | /'
  [ ! -s "$diffs" ] || say "      all differences: $diffs"
}

wants() { [[ " $LAYERS " == *" $1 "* ]]; }
export USHER_FSYNC=off # see scripts/cluster.sh
outside=() # the layers that need the scratch cluster
for name in regress isolation clients; do ! wants "$name" || outside+=("$name"); done

check_rust
pg_detect
say "make test${PG:+ PG=$PG} will use, and install where it is missing:"
scripts/deps.sh plan
plan_install
plan_cluster
say

STEPS=$(($(count_deps_steps) + $(wc -w <<<"$LAYERS")))
[ ${#outside[@]} -eq 0 ] || STEPS=$((STEPS + 3))
if ! deps_steps; then
  total_failed=1
  finish
fi
was_running=$(scripts/cluster.sh status >/dev/null 2>&1 && echo yes || true)

if wants unit; then
  [ -w "$("$PG_CONFIG" --pkglibdir)" ] || ask_root "copying the extension to PostgreSQL for the tests"
  layer unit "unit tests and tests inside a backend" "8 minutes the first time, 1 after" count_cargo scripts/unit.sh
fi

if [ ${#outside[@]} -gt 0 ]; then
  if build_step && install_step && cluster_step; then
    eval "$(scripts/cluster.sh env)"
    ! wants regress || layer regress "golden files (pg_regress)" "10 seconds" count_regress scripts/regress.sh regress
    ! wants isolation || layer isolation "concurrent sessions (pg_isolation_regress)" "20 seconds" count_regress scripts/regress.sh isolation
    ! wants clients || layer clients "clients over real connections" "8 minutes the first time, 6 after" count_cargo scripts/clients.sh
  else
    for name in "${outside[@]}"; do report "$name" "0 1" "not run"; done
  fi
fi

# as it was found: no server left running, except when it ran before
unset USHER_FSYNC
if [ -n "$was_running" ]; then scripts/cluster.sh start || true; else scripts/cluster.sh stop; fi >"$LOGS/cluster-end.log" 2>&1
finish
