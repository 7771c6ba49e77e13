#!/usr/bin/env bash
# What the build needs from outside the repository, part by part; scripts/goal.sh runs the parts as steps.
#   deps.sh plan                    say what is there and what would be installed where
#   deps.sh apt | server | cargo-pgrx | init   do one part; cargo-deny is for make lint alone
#   DRY_RUN=1                       print the commands instead
. "$(dirname "$0")/lib.sh"
pg_detect

run() {
  if [ -n "${DRY_RUN:-}" ]; then
    say "  would run: $*"
  else
    say "+ $*"
    "$@"
  fi
}
run_root() { if is_root; then run "$@"; else run sudo "$@"; fi; }
# no questions, and no restarting of services that have nothing to do with us
APT_GET=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get)

plan() {
  local missing
  if [ -z "$PG_MAJOR" ]; then
    say "PostgreSQL: the first of $MAJORS that apt offers, once 'apt-get update' has run."
    PG_MAJOR=NN
  elif must_build_server; then
    say "PostgreSQL $PG_MAJOR: apt has no package of it here, so it is built from source into $(dirname "$PG_BIN")"
  else
    say "PostgreSQL $PG_MAJOR ($PG_CONFIG)"
    [ -z "$PG" ] || [ -x "$PG_CONFIG" ] || has_package "$PG" ||
      say "  or, if apt has no package of it, built from source into $(pg_cache)/pg$PG"
  fi
  missing=$(missing_packages | paste -sd' ')
  say "  system packages      ${missing:+apt-get install }${missing:-all there}"
  if have_cargo_pgrx; then
    say "  cargo-pgrx $(pgrx_version)    there"
  else
    say "  cargo-pgrx $(pgrx_version)    cargo install, into ${CARGO_HOME:-$HOME/.cargo}/bin$(other_cargo_pgrx)"
  fi
  if have_pgrx_init; then
    say "  pgrx set-up          there ($(pgrx_config))"
  else
    say "  pgrx set-up          one line for pg$PG_MAJOR in $(pgrx_config)"
  fi
}
other_cargo_pgrx() {
  local other
  other=$(cargo pgrx --version 2>/dev/null) || return 0
  echo " (in place of $other)"
}

# Debian's package creates and starts a cluster on port 5432 when it is installed. Nobody asked for one here,
# so that is switched off while we install, and put back as it was afterwards.
CLUSTER_CONF=/etc/postgresql-common/createcluster.conf
hold_main_cluster() {
  [ -e "$CLUSTER_CONF" ] || apt_install postgresql-common
  trap release_main_cluster EXIT
  [ -e "$CLUSTER_CONF.usher-saved" ] || run_root cp -p "$CLUSTER_CONF" "$CLUSTER_CONF.usher-saved"
  run_root pg_conftool "$CLUSTER_CONF" set create_main_cluster false
}
release_main_cluster() { run_root mv -f "$CLUSTER_CONF.usher-saved" "$CLUSTER_CONF"; }

# Installing the headers can pull in an upgrade of an installed server; apt then sometimes stops half way and
# goes through when it is asked again.
apt_install() {
  local install=(run_root "${APT_GET[@]}" install -y --no-install-recommends "$@")
  "${install[@]}" || { run_root dpkg --configure -a && "${install[@]}"; }
}

apt_part() {
  local missing
  if [ -n "$PG_MAJOR" ] && [ -z "$(missing_packages)" ]; then
    say "  all system packages are there"
    return
  fi
  command -v apt-get >/dev/null || die "no apt-get here; install by hand: $(missing_packages | paste -sd' ')"
  run_root "${APT_GET[@]}" update
  pg_detect # apt may know more now
  if [ -z "$PG_MAJOR" ]; then
    [ -n "${DRY_RUN:-}" ] || die "apt offers none of PostgreSQL $MAJORS"
    PG_MAJOR=NN
  fi
  missing=$(missing_packages | paste -sd' ')
  case " $missing " in *" postgresql-$PG_MAJOR "*) hold_main_cluster ;; esac
  # shellcheck disable=SC2086 # a list of names
  apt_install $missing
}

server_part() {
  if [ -x "$PG_CONFIG" ]; then
    say "  PostgreSQL $PG_MAJOR is there"
    return
  fi
  run scripts/pg_source.sh "${PG_MAJOR:-NN}"
}

cargo_pgrx_part() {
  if have_cargo_pgrx; then
    say "  cargo-pgrx $(pgrx_version) is there"
    return
  fi
  run cargo install cargo-pgrx --version "$(pgrx_version)" --locked
}

cargo_deny_part() {
  if have_cargo_deny; then
    say "  cargo-deny $CARGO_DENY is there"
    return
  fi
  run cargo install cargo-deny --version "$CARGO_DENY" --locked
}

init_part() {
  if have_pgrx_init; then
    say "  pgrx knows PostgreSQL $PG_MAJOR"
    return
  fi
  # It writes its file anew, so the versions that it knows already are told again.
  local known=() major path
  while IFS='="' read -r major _ path _; do
    major=${major// /}
    [ "$major" = "pg$PG_MAJOR" ] || [ ! -x "$path" ] || known+=("--$major" "$path")
  done < <(grep -sE '^pg[0-9]+ = "' "$(pgrx_config)" || true)
  # --no-run: it would make a cluster of its own below ~/.pgrx, which nothing here uses
  run cargo pgrx init "--pg${PG_MAJOR:-NN}" "${PG_CONFIG:-/usr/lib/postgresql/NN/bin/pg_config}" "${known[@]}" --no-run
}

case ${1:-} in
  plan) plan ;;
  apt) apt_part ;;
  server) server_part ;;
  cargo-pgrx) cargo_pgrx_part ;;
  cargo-deny) cargo_deny_part ;;
  init) init_part ;;
  *) die "usage: scripts/deps.sh plan|apt|server|cargo-pgrx|cargo-deny|init" ;;
esac
