# shellcheck shell=bash disable=SC2034 # variables are for those who source this
# Shared by all scripts here: where things are, which PostgreSQL, how a step is announced, timed, logged.
# Source it; it sets bash strict mode and changes to the top of the repository.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
LOGS=$ROOT/target/logs
EXTENSION=pg_usher
MAJORS="15 16 17 18" # in the order we prefer them; 15 is the default feature in Cargo.toml

# rustup puts cargo here, but not every shell has it on its PATH; runuser lives in sbin
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
export PATH

say() { printf '%s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
is_root() { [ "$(id -u)" -eq 0 ]; }
fmt_time() { if [ "$1" -ge 60 ]; then echo "$(($1 / 60))m $(($1 % 60))s"; else echo "$1s"; fi; }

# ---- rights ------------------------------------------------------------------------------------

as_root() { if is_root; then "$@"; else sudo "$@"; fi; }

# Steps write to log files, so a password has to be asked for before them, not inside.
ask_root() {
  is_root && return
  command -v sudo >/dev/null || die "$1 needs root, and there is no sudo here: run this as root"
  sudo -n true 2>/dev/null && return
  say "$1 needs root; sudo may ask for your password."
  sudo -v || die "no root rights, so $1 is not possible"
}

# PostgreSQL's server refuses to run as root: root becomes the user its package made. The working
# directory changes because that user may not be allowed to enter the repository.
PG_USER=$(if is_root; then echo postgres; else id -un; fi)
as_pg() {
  if is_root; then
    id postgres >/dev/null 2>&1 || die "no user 'postgres' on this machine: run 'make deps', or work as an ordinary user"
    (cd / && exec runuser -u postgres -- "$@")
  else
    (cd / && exec "$@")
  fi
}

# ---- which PostgreSQL --------------------------------------------------------------------------

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
has_server_dev() { [ -x "/usr/lib/postgresql/$1/bin/postgres" ] && [ -e "/usr/include/postgresql/$1/server/postgres.h" ]; }
apt_offers() { LC_ALL=C apt-cache policy "postgresql-server-dev-$1" 2>/dev/null | grep 'Candidate: [0-9]' >/dev/null; }
has_server() { [ -x "/usr/lib/postgresql/$1/bin/postgres" ] && apt_offers "$1"; }
first_major() {
  local major
  for major in $MAJORS; do "$1" "$major" && echo "$major" && return; done
  return 1
}

# A major that apt does not offer is built by scripts/pg_source.sh, once for all checkouts. Root builds where everybody may
# read: the server runs as the user postgres.
pg_cache() { echo "${USHER_PG_CACHE:-$(if is_root; then echo /opt/pg_usher; else echo "${XDG_CACHE_HOME:-$HOME/.cache}/pg_usher"; fi)}"; }
built_config() { echo "$(pg_cache)/pg$1/bin/pg_config"; }
has_package() { has_server_dev "$1" || has_server "$1" || apt_offers "$1"; }
# Where the PostgreSQL of a major is, or will be.
config_of_major() {
  if has_package "$1" || { [ ! -x "$(built_config "$1")" ] && ! first_major apt_offers >/dev/null; }; then
    echo "/usr/lib/postgresql/$1/bin/pg_config" # also when apt knows nothing yet: it is asked again when it does
  else
    built_config "$1"
  fi
}

# Sets PG_MAJOR, PG_CONFIG, PG_BIN and CARGO_FEATURES: from PG_CONFIG as it was given, from PG=<major>, or the first major
# there is. PG_MAJOR stays empty when nothing is installed and apt knows no package yet (a fresh machine before its first
# apt-get update).
PG=${PG:-}
PG_GIVEN=${PG_CONFIG:-}
pg_detect() {
  PG_CONFIG=$PG_GIVEN
  [ -z "$PG" ] || [[ " $MAJORS " == *" $PG "* ]] || die "PG is $PG: this extension is for PostgreSQL $MAJORS"
  if [ -z "$PG_CONFIG" ] && [ -n "$PG" ]; then
    PG_CONFIG=$(config_of_major "$PG")
  fi
  if [ -x "$PG_CONFIG" ]; then
    PG_MAJOR=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    PG_BIN=$("$PG_CONFIG" --bindir)
    # Debian's /usr/bin/pg_config is a wrapper that may mean another version tomorrow
    [ ! -x "$PG_BIN/pg_config" ] || PG_CONFIG=$PG_BIN/pg_config
  elif [[ $PG_CONFIG =~ ^/usr/lib/postgresql/([0-9]+)/bin/pg_config$ ]]; then
    PG_MAJOR=${BASH_REMATCH[1]} # not there yet, but apt can bring it
  elif [ -n "$PG" ] && [ "$PG_CONFIG" = "$(built_config "$PG")" ]; then
    PG_MAJOR=$PG # not there yet, but can be built
  elif [ -n "$PG_CONFIG" ]; then
    die "PG_CONFIG is $PG_CONFIG, which is not there"
  else
    PG_MAJOR=$(first_major has_server_dev || first_major has_server || first_major apt_offers || true)
    [ -n "$PG_MAJOR" ] || return 0
    PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
  fi
  [[ " $MAJORS " == *" $PG_MAJOR "* ]] || die "PostgreSQL $PG_MAJOR: this extension is for $MAJORS"
  [ -z "$PG" ] || [ "$PG" = "$PG_MAJOR" ] || die "PG is $PG, but PG_CONFIG is of PostgreSQL $PG_MAJOR"
  PG_BIN=${PG_CONFIG%/pg_config}
  CARGO_FEATURES=() # Cargo.toml's default is 15
  [ "$PG_MAJOR" = 15 ] || CARGO_FEATURES=(--no-default-features --features "pg$PG_MAJOR")
}
# The server that PG asks for has to be built.
must_build_server() { [ -n "$PG" ] && [ "$PG_CONFIG" = "$(built_config "$PG")" ] && [ ! -x "$PG_CONFIG" ]; }

pg_require() {
  pg_detect
  [ -x "$PG_CONFIG" ] || die "no PostgreSQL server found: run 'make deps' first"
}

# The scratch directories: short, because a socket's path may have 107 characters and no more.
scratch_dir() { echo "/tmp/usher-$(printf %s "$ROOT" | sha256sum | cut -c1-6)-$PG_MAJOR"; }

# A name below /tmp can be guessed: never use what somebody else has put there.
own_dir() {
  local dir=$1
  [ ! -L "$dir" ] || die "$dir is a symbolic link; remove it"
  [ -d "$dir" ] || if is_root; then install -d -m 0700 -o "$PG_USER" "$dir"; else install -d -m 0700 "$dir"; fi
  [ "$(stat -c %U "$dir")" = "$PG_USER" ] || die "$dir belongs to $(stat -c %U "$dir"), not to $PG_USER; remove it"
}

# ---- what is already there ---------------------------------------------------------------------

from_debian() { [[ -z $PG_CONFIG || $PG_CONFIG == /usr/lib/postgresql/* ]]; }

# The C compiler and linker, bindgen's libclang (and the clang it asks for include paths), OpenSSL for
# cargo-pgrx; sudo because `cargo pgrx test` calls it even for root.
missing_packages() {
  local package want="build-essential pkg-config libssl-dev libclang-dev clang sudo"
  ! from_debian || want="postgresql-$PG_MAJOR postgresql-server-dev-$PG_MAJOR $want"
  ! must_build_server || want="$want libicu-dev libreadline-dev zlib1g-dev bison flex perl bzip2"
  # its package makes the user postgres
  from_debian || ! is_root || id postgres >/dev/null 2>&1 || want="$want postgresql-common"
  for package in $want; do installed "$package" || echo "$package"; done
}

# cargo-pgrx and the pgrx crate must be the same version; Cargo.toml says which.
pgrx_version() { sed -nE 's/^pgrx *=.*"=([0-9.]+)".*/\1/p' Cargo.toml | head -n 1; }
have_cargo_pgrx() { [ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $(pgrx_version)" ]; }
CARGO_DENY=0.20.2 # builds with the Rust of Cargo.toml
have_cargo_deny() { [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $CARGO_DENY" ]; }
pgrx_config() { echo "${PGRX_HOME:-$HOME/.pgrx}/config.toml"; }
have_pgrx_init() { grep -qsxF "pg$PG_MAJOR = \"$PG_CONFIG\"" "$(pgrx_config)"; }

check_rust() {
  command -v cargo >/dev/null || die "cargo is not here: install Rust with rustup, open a new shell, try again"
  local need have
  need=$(sed -nE 's/^rust-version *= *"([0-9.]+)".*/\1/p' Cargo.toml | head -n 1)
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ] ||
    die "Rust $have is too old, $need is needed: run 'rustup update stable'"
}

# ---- steps -------------------------------------------------------------------------------------

STEP=0
STEPS=0
announce() {
  STEP=$((STEP + 1))
  say "[$STEP/$STEPS] $1"
}

# step <log name> <title> <usual time> <command…>: the command's output goes to target/logs/<name>.log.
# Give it programs, not functions: bash ignores -e inside a function called this way.
step() {
  local log=$LOGS/$1.log title=$2 usual=$3 begin=$SECONDS rc=0
  shift 3
  announce "$title (usually $usual)"
  mkdir -p "$LOGS"
  "$@" >"$log" 2>&1 </dev/null || rc=$?
  if [ "$rc" -eq 0 ]; then
    say "      done in $(fmt_time $((SECONDS - begin)))"
  else
    say "      FAILED after $(fmt_time $((SECONDS - begin))). The end of $log:"
    tail -n 25 "$log" | sed 's/^/      | /'
  fi
  return "$rc"
}
nothing_to_do() { announce "$1: nothing to do"; }
