#!/usr/bin/env bash
# Licences, sources and doubles of what Cargo.lock names (deny.toml), and known holes in it as far as the database of
# advisories can be had: without a network the first three are checked all the same.
. "$(dirname "$0")/lib.sh"
have_cargo_deny || die "cargo-deny $CARGO_DENY is not here: run scripts/deps.sh cargo-deny"

code=0
cargo deny --locked check licenses bans sources || code=1
# Fetched with git; a server that does not answer shall not keep anybody.
if timeout 60 cargo deny --locked fetch db >/dev/null 2>&1; then
  cargo deny --offline --locked check advisories || code=1
else
  say "advisories: NOT CHECKED, the database of advisories cannot be reached from here"
fi
exit "$code"
