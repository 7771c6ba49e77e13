#!/usr/bin/env bash
# Formatting, clippy and shell syntax. All of them run, then it says which failed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/steps.sh"

check_rust
pg_detect
say "make lint${PG:+ PG=$PG} will use, and install where it is missing:"
scripts/deps.sh plan
say

STEPS=$(($(count_deps_steps) + 4))
deps_steps # clippy needs PostgreSQL's headers and libclang

scripts=(scripts/*.sh .ci/run)
bad=()
step lint-fmt "formatting" "2 seconds" cargo fmt --all --check || bad+=("cargo fmt")
step lint-extension "clippy, the extension" "3 minutes the first time, seconds after" \
  cargo clippy -p "$EXTENSION" --all-targets "${CARGO_FEATURES[@]}" -- -D warnings || bad+=("clippy, the extension")
step lint-clients "clippy, the clients" "1 minute the first time, seconds after" \
  cargo clippy -p usher-clients --all-targets -- -D warnings || bad+=("clippy, the clients")
# bash takes one file at a time
# shellcheck disable=SC2016 # $@ is for the inner bash
check='for file; do bash -n "$file" || exit; done; ! command -v shellcheck >/dev/null || shellcheck -x -P scripts -S warning "$@"'
step lint-shell "shell scripts" "1 second" bash -c "$check" bash "${scripts[@]}" || bad+=("shell scripts")

say
[ ${#bad[@]} -eq 0 ] || die "lint: $(printf '%s; ' "${bad[@]}")see above"
say "lint: clean"
