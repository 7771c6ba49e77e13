# shellcheck shell=bash disable=SC2034 # variables are for those who source this
# The steps that several goals share. Source it after lib.sh. Every function returns non-zero when its step fails.

count_deps_steps() { if may_build_server; then echo 4; else echo 3; fi; }
# as far as can be told before apt-get update
may_build_server() { must_build_server || { [ -n "$PG" ] && [ ! -x "$PG_CONFIG" ] && ! has_package "$PG"; }; }
deps_steps() {
  local may_build=''
  ! may_build_server || may_build=yes
  pg_detect
  if [ -n "$PG_MAJOR" ] && [ -z "$(missing_packages)" ]; then
    nothing_to_do "system packages"
  else
    ask_root "apt-get" || return 1
    step apt "installing system packages" "1 to 3 minutes" scripts/deps.sh apt || return 1
  fi
  pg_detect # apt may know more now
  if must_build_server; then
    step server "building PostgreSQL $PG_MAJOR from source, once, into $(dirname "$PG_BIN")" "4 minutes" scripts/deps.sh server || return 1
  elif [ -n "$may_build" ]; then
    nothing_to_do "building PostgreSQL $PG_MAJOR"
  fi
  pg_require # now it must be there
  if have_cargo_pgrx; then
    nothing_to_do "cargo-pgrx"
  else
    step cargo-pgrx "installing cargo-pgrx $(pgrx_version)" "5 minutes" scripts/deps.sh cargo-pgrx || return 1
  fi
  if have_pgrx_init; then
    nothing_to_do "telling pgrx about PostgreSQL $PG_MAJOR"
  else
    step pgrx-init "telling pgrx about PostgreSQL $PG_MAJOR" "1 second" scripts/deps.sh init || return 1
  fi
}

build_step() {
  step build "building the extension" "4 minutes the first time, seconds after" scripts/install.sh build
}

install_step() {
  if scripts/install.sh check; then
    nothing_to_do "installing it into PostgreSQL $PG_MAJOR"
    return
  fi
  [ -w "$("$PG_CONFIG" --pkglibdir)" ] || ask_root "copying the extension to PostgreSQL" || return 1
  step install "installing it into PostgreSQL $PG_MAJOR" "1 second" scripts/install.sh copy
}

cluster_step() {
  step cluster "starting the scratch cluster" "3 seconds" scripts/cluster.sh start || return 1
  tail -n 1 "$LOGS/cluster.log" | sed 's/^/      /'
}

plan_install() {
  if [ -x "$PG_CONFIG" ]; then
    say "  the extension        into $("$PG_CONFIG" --pkglibdir) and $("$PG_CONFIG" --sharedir)/extension"
  else
    say "  the extension        into PostgreSQL's lib and extension directories"
  fi
}
plan_cluster() {
  [ -n "$PG_MAJOR" ] || return 0
  say "  a scratch cluster    in ${USHER_HOME:-$(scratch_dir)} (unix socket only; other clusters are left alone)"
}
