# shellcheck shell=bash
# Reads test logs. Every function takes a log on its stdin and prints "<passed> <failed>". Source it.

# test result: ok. 12 passed; 0 failed; 1 ignored; …   (one such line for every test binary)
count_cargo() {
  sed -nE 's/.*test result: [A-Za-z]+\. ([0-9]+) passed; ([0-9]+) failed.*/\1 \2/p' |
    awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }'
}

# PostgreSQL 15:  "test name      ... ok      12 ms", "     name   ... FAILED   (parallel group)"
# 16 and later:   "ok 1     - name     12 ms",        "not ok 2     + name  12 ms"
count_regress() {
  awk '/^(test | ).* \.\.\. ok / || /^ok [0-9]+ / { passed++ }
       /^(test | ).* \.\.\. FAILED/ || /^not ok [0-9]+ / { failed++ }
       END { print passed + 0, failed + 0 }'
}

# failures: the failed tests of such a log by name, and of cargo's the lines in which they say why
failures() {
  # all of it is read, also when enough has been printed: a pipe that closes early would end the caller
  awk 'function say(line) { if (said++ < 60) print substr(line, 1, 400) }
       /^test .* \.\.\. FAILED/ || /^ .* \.\.\. FAILED/ || /^not ok / { say($0); next }
       /^---- .* stdout ----$/ { left = 12; next }
       /^failures:$/ || /^$/ && left < 11 { left = 0 }
       left > 0 && NF && !/RUST_BACKTRACE/ { say("    " $0); left-- }'
}

# settle <exit code> "<passed> <failed>": a layer that ended badly without a failed test (it did not compile, it
# crashed), or that ran no test at all, has failed once.
settle() {
  local code=$1 passed failed
  read -r passed failed <<<"$2"
  if [ "$failed" -eq 0 ] && { [ "$code" -ne 0 ] || [ "$passed" -eq 0 ]; }; then failed=1; fi
  echo "$passed $failed"
}
