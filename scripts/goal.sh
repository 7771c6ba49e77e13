#!/usr/bin/env bash
# What the Makefile's goals consist of: which steps, in which order.
#   goal.sh deps | build | install | cluster | psql | demo | bench | soak
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/steps.sh"
goal=${1:-}

case $goal in
  deps | build | install | cluster | demo | bench | soak) ;;
  psql)
    # no steps, no build when the extension is there already
    pg_detect
    if [ -x "$PG_CONFIG" ] && [ -e "$("$PG_CONFIG" --pkglibdir)/$EXTENSION.so" ]; then
      exec scripts/cluster.sh psql
    fi
    ;;
  *) die "usage: scripts/goal.sh deps|build|install|cluster|psql|demo|bench|soak" ;;
esac

check_rust
pg_detect
say "make $goal${PG:+ PG=$PG} will use, and install where it is missing:"
scripts/deps.sh plan
[ "$goal" = deps ] || [ "$goal" = build ] || plan_install
case $goal in deps | build | install) ;; *) plan_cluster ;; esac
say

if [ -n "${DRY_RUN:-}" ]; then
  [ "$goal" = deps ] || die "DRY_RUN is for make deps"
  scripts/deps.sh apt
  ! must_build_server || scripts/deps.sh server
  scripts/deps.sh cargo-pgrx
  scripts/deps.sh init
  exit
fi

STEPS=$(count_deps_steps)
case $goal in
  deps) ;;
  build) STEPS=$((STEPS + 1)) ;;
  install) STEPS=$((STEPS + 2)) ;;
  cluster | psql) STEPS=$((STEPS + 3)) ;;
  soak) STEPS=$((STEPS + 5)) ;;
  *) STEPS=$((STEPS + 4)) ;;
esac

deps_steps
[ "$goal" != deps ] || exit 0
build_step
[ "$goal" != build ] || exit 0
install_step
[ "$goal" != install ] || exit 0
# what is measured is measured alone
[ "$goal" != bench ] || export USHER_PRELOAD=$EXTENSION
cluster_step

case $goal in
  psql) exec scripts/cluster.sh psql ;;
  cluster) say "'make psql' opens psql in it, 'make stop' stops it." ;;
  *)
    # before the servers are tormented: an input that breaks a parser is found in minutes
    [ "$goal" != soak ] || step fuzz "random input for every parser" "5 minutes, and 4 to build the first time" \
      env USHER_FUZZ_SECONDS="${USHER_FUZZ_SECONDS:-20}" cargo test --release -p "$EXTENSION" --lib "${CARGO_FEATURES[@]}" fuzz
    step client "building the $goal client" "2 minutes the first time, seconds after" \
      cargo build --release -p usher-clients --bin "$goal"
    say
    eval "$(scripts/cluster.sh env)"
    cargo run --release -q -p usher-clients --bin "$goal"
    [ "$goal" != demo ] || say "'make psql' looks inside, 'make stop' stops the scratch cluster, 'make clean' removes it."
    ;;
esac
