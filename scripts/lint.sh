#!/usr/bin/env bash
# Formatting, clippy, dependencies and shell syntax. All of them run, then it says which failed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/steps.sh"

check_rust
pg_detect
say "make lint${PG:+ PG=$PG} will use, and install where it is missing:"
scripts/deps.sh plan
if have_cargo_deny; then
  say "  cargo-deny $CARGO_DENY    there"
else
  say "  cargo-deny $CARGO_DENY    cargo install, into ${CARGO_HOME:-$HOME/.cargo}/bin"
fi
say

STEPS=$(($(count_deps_steps) + 6))
deps_steps # clippy needs PostgreSQL's headers and libclang

if have_cargo_deny; then
  nothing_to_do "cargo-deny"
else
  step cargo-deny "installing cargo-deny $CARGO_DENY" "3 minutes" scripts/deps.sh cargo-deny || true # the step below says so
fi

scripts=(scripts/*.sh .ci/run)
bad=()
step lint-fmt "formatting" "2 seconds" cargo fmt --all --check || bad+=("cargo fmt")
step lint-extension "clippy, the extension" "3 minutes the first time, seconds after" \
  cargo clippy -p "$EXTENSION" --all-targets "${CARGO_FEATURES[@]}" -- -D warnings || bad+=("clippy, the extension")
step lint-clients "clippy, the clients" "1 minute the first time, seconds after" \
  cargo clippy -p usher-clients --all-targets -- -D warnings || bad+=("clippy, the clients")
step lint-dependencies "licences, sources and advisories of dependencies" "2 seconds" scripts/dependencies.sh || bad+=("dependencies")
grep -s '^advisories: ' "$LOGS/lint-dependencies.log" | sed 's/^/      /' || true
# bash takes one file at a time
# shellcheck disable=SC2016 # $@ is for the inner bash
check='for file; do bash -n "$file" || exit; done; ! command -v shellcheck >/dev/null || shellcheck -x -P scripts -S warning "$@"'
step lint-shell "shell scripts" "1 second" bash -c "$check" bash "${scripts[@]}" || bad+=("shell scripts")

say
[ ${#bad[@]} -eq 0 ] || die "lint: $(printf '%s; ' "${bad[@]}")see above"
say "lint: clean"
