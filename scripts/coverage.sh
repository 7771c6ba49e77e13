#!/usr/bin/env bash
# Which lines of the extension the tests run: measured in the server, by a library that counts, while the layers from
# outside (and the pure unit tests) run. Writes target/coverage/report.txt; the last line is the sum.
#   LAYERS="regress isolation clients"     which layers to run
# Processes that are killed with -9 write nothing, so what only they ran is not counted.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/steps.sh"
pg_require
LAYERS=${LAYERS:-regress isolation clients}
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$tools/llvm-cov" ] || die "the tools for coverage are not here: run 'rustup component add llvm-tools'"
scripts/install.sh check || die "the installed extension is not the built one: run 'make install'"

out=$ROOT/target/coverage
profiles=$(scratch_dir)-profiles # backends write here
plain=$(scripts/cluster.sh status >/dev/null 2>&1 && echo running || true)
rm -rf "$out"/{package,all.profdata,report.txt} # what is compiled stays
mkdir -p "$out"
own_dir "$profiles"
# Only the extension counts.
wrapper=$out/rustc
cat >"$wrapper" <<'EOF'
#!/bin/sh
rustc=$1
shift
case " $* " in
  *" --crate-name pg_usher "*) exec "$rustc" "$@" -C instrument-coverage ;;
  *) exec "$rustc" "$@" ;;
esac
EOF
chmod +x "$wrapper"
tidy() {
  unset LLVM_PROFILE_FILE USHER_PACKAGE
  scripts/cluster.sh stop >/dev/null 2>&1 || true
  scripts/install.sh copy >/dev/null || true
  [ -z "$plain" ] || scripts/cluster.sh start >/dev/null || true
  rm -rf "$profiles"
}
trap tidy EXIT

STEPS=$((4 + $(wc -w <<<"$LAYERS")))
step coverage-build "building the extension so that it counts" "2 minutes" \
  env RUSTC_WORKSPACE_WRAPPER="$wrapper" CARGO_TARGET_DIR="$out/cargo" USHER_PACKAGE="$out/package" scripts/install.sh build
# those inside a backend are left out: cargo pgrx test starts its server without our environment
step coverage-unit "pure unit tests" "1 minute" \
  env RUSTC_WORKSPACE_WRAPPER="$wrapper" LLVM_PROFILE_FILE="$profiles/unit-%4m.profraw" \
  cargo test -p "$EXTENSION" --lib "${CARGO_FEATURES[@]}" --target-dir "$out/cargo" -- --skip pg_tests
export USHER_PACKAGE=$out/package LLVM_PROFILE_FILE=$profiles/server-%8m.profraw
scripts/cluster.sh stop >/dev/null
scripts/install.sh copy >/dev/null
step coverage-cluster "starting the scratch cluster" "3 seconds" scripts/cluster.sh start
eval "$(scripts/cluster.sh env)"
for layer in $LAYERS; do
  case $layer in
    regress | isolation) step "coverage-$layer" "$layer" "20 seconds" scripts/regress.sh "$layer" || true ;;
    clients) step coverage-clients "clients" "4 minutes" cargo test --release -p usher-clients --no-fail-fast -- --test-threads=1 || true ;;
    *) die "LAYERS: there is no layer '$layer' here, only regress, isolation and clients" ;;
  esac
done
scripts/cluster.sh stop >/dev/null

announce "adding up"
library=$out/package$("$PG_CONFIG" --pkglibdir)/$EXTENSION.so
unit=$(find "$out/cargo/debug/deps" -maxdepth 1 -type f -executable -name "$EXTENSION-*" | head -n 1)
"$tools/llvm-profdata" merge --sparse --failure-mode=all -o "$out/all.profdata" "$profiles"/*.profraw
"$tools/llvm-cov" report --instr-profile "$out/all.profdata" "$library" ${unit:+--object "$unit"} \
  --ignore-filename-regex '(/\.cargo/|/rustc/|architecture|_tests\.rs|/pgrx-tests/|/target/)' >"$out/report.txt" 2>"$out/llvm-cov.log"
say "      by file: target/coverage/report.txt"
tail -n 1 "$out/report.txt"
