#!/usr/bin/env bash
# The tests of real clients, in lanes side by side, since most of their time is waiting. Each lane has a scratch cluster of its own, so that a
# test may restart, kill and fill its server, and takes the next test file when it is done with one. Prints what each file said, one after the other.
#   CLIENT_LANES=3   how many
. "$(dirname "$0")/lib.sh"
pg_require
export USHER_FSYNC=off # see scripts/cluster.sh
LANES=${CLIENT_LANES:-3}
# Those that take longest begin, so that no lane is left with one of them at the end.
LONG="worker live_workflows platform rules gate repair model quarantine migration schedules limits live_money revenue events databases merges workflows stopping faults standby"

files=()
for name in $LONG; do [ ! -e "tests/clients/tests/$name.rs" ] && [ ! -d "tests/clients/tests/$name" ] || files+=("$name"); done
for path in tests/clients/tests/*; do
  name=$(basename "$path" .rs)
  [[ " $LONG " == *" $name "* ]] || files+=("$name")
done

cargo test --release -p usher-clients --no-run
logs=$LOGS/clients-pg$PG_MAJOR
rm -rf "$logs"
mkdir -p "$logs"
printf '%s\n' "${files[@]}" >"$logs/.waiting"
home=${USHER_HOME:-$(scratch_dir)}

# The next file, for one lane only.
next() {
  (
    flock 9
    head -n 1 "$logs/.waiting"
    sed -i 1d "$logs/.waiting"
  ) 9>"$logs/.lock"
}

run() { cargo test --release -p usher-clients --no-fail-fast "$@" -- --test-threads=1 >"$logs/$name.log" 2>&1 9>&-; }

lane() {
  local name code=0
  eval "$(USHER_HOME=$home-$1 scripts/cluster.sh env)"
  while name=$(next) && [ -n "$name" ]; do
    run --test "$name" || code=$?
  done
  return "$code"
}

# shellcheck disable=SC2317 # called by the trap
end() { for ((i = 1; i <= LANES; i++)); do USHER_HOME=$home-$i scripts/cluster.sh destroy; done; }
trap end EXIT
# what a run that was killed has left, half made maybe
end >/dev/null 2>&1
for ((i = 1; i <= LANES; i++)); do USHER_HOME=$home-$i scripts/cluster.sh start; done

code=0
name=own
run --lib --bins || code=$?
lanes=()
for ((i = 1; i <= LANES; i++)); do
  lane "$i" &
  lanes+=($!)
done
for lane in "${lanes[@]}"; do wait "$lane" || code=$?; done
cat "$logs"/*.log
exit "$code"
