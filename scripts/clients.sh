#!/usr/bin/env bash
# The tests of real clients, in two parts side by side, since most of their time is waiting: those that restart, kill or
# fill servers do so in a scratch cluster of their own, the others use the running one. Prints the one part after the other.
. "$(dirname "$0")/lib.sh"
pg_require
ROUGH=" databases events faults life merges migration model quarantine standby stopping worker workflows "

rough=() calm=(--lib --bins)
for file in tests/clients/tests/*.rs; do
  name=$(basename "$file" .rs)
  case $ROUGH in
    *" $name "*) rough+=(--test "$name") ;;
    *) calm+=(--test "$name") ;;
  esac
done

cargo test --release -p usher-clients --no-run
run() { cargo test --release -p usher-clients --no-fail-fast "$@" -- --test-threads=1; }

home=${USHER_HOME:-$(scratch_dir)}-r
mkdir -p "$LOGS"
log=$LOGS/clients-rough-pg$PG_MAJOR.log
USHER_HOME=$home scripts/cluster.sh start
# shellcheck disable=SC2317 # called by the trap
end() { USHER_HOME=$home scripts/cluster.sh destroy; }
trap end EXIT
(
  eval "$(USHER_HOME=$home scripts/cluster.sh env)"
  run "${rough[@]}"
) >"$log" 2>&1 &
other=$!

code=0
(
  eval "$(scripts/cluster.sh env)"
  run "${calm[@]}"
) || code=$?
wait "$other" || code=$?
cat "$log"
exit "$code"
