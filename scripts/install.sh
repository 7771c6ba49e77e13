#!/usr/bin/env bash
# Build the extension as the caller, below target/; copy as root, and only the files that differ.
#   install.sh build     compile and lay out the files as PostgreSQL wants them
#   install.sh check     succeeds when all of them are installed already
#   install.sh copy      install those that differ
#   install.sh remove    take the extension out of PostgreSQL's directories again
#   install.sh old-add | old-remove     the scripts of released versions, which only the test of the upgrade needs
. "$(dirname "$0")/lib.sh"
pg_require
PACKAGE=${USHER_PACKAGE:-$ROOT/target/package-pg$PG_MAJOR}

build() {
  local fresh=$PACKAGE.new
  rm -rf "$fresh"
  # pgrx adds the feature for the PostgreSQL version by itself
  cargo pgrx package --pg-config "$PG_CONFIG" --out-dir "$fresh"
  rm -rf "$PACKAGE" # an older version's SQL would be installed with the new ones
  mv "$fresh" "$PACKAGE"
}

# the built files as absolute paths, which is where they belong
built_files() { [ -d "$PACKAGE" ] && (cd "$PACKAGE" && find . -type f | sed 's/^\.//' | sort); }
differing() {
  local file
  built_files | while read -r file; do cmp -s "$PACKAGE$file" "$file" || echo "$file"; done
}

check() { [ -d "$PACKAGE" ] && [ -z "$(differing)" ]; }

# a PostgreSQL built by hand may belong to the caller
with_rights_for() {
  local dir=$1
  shift
  if [ -w "$dir" ]; then "$@"; else as_root "$@"; fi
}

copy() {
  local file files
  [ -d "$PACKAGE" ] || die "nothing built yet: run 'make build'"
  files=$(differing)
  for file in $files; do
    say "+ install $file"
    # install(1) makes a new file instead of writing into the old one, which a running server may have mapped
    with_rights_for "$(dirname "$file")" install -m "$(case $file in *.so) echo 755 ;; *) echo 644 ;; esac)" "$PACKAGE$file" "$file"
  done
  [ -n "$files" ] || say "all installed files are up to date"
}

remove() {
  local lib extension
  lib=$("$PG_CONFIG" --pkglibdir)
  extension=$("$PG_CONFIG" --sharedir)/extension
  with_rights_for "$lib" rm -f "$lib/$EXTENSION.so"
  with_rights_for "$extension" find "$extension" -maxdepth 1 \
    \( -name "$EXTENSION.control" -o -name "$EXTENSION--*.sql" \) -delete
}

# Old versions' scripts are no part of an installation: nobody shall create an old version by mistake.
old_scripts() { find tests/upgrade -mindepth 2 -maxdepth 2 -name "$EXTENSION--*.sql" | sort; }
old_add() {
  local extension script
  extension=$("$PG_CONFIG" --sharedir)/extension
  for script in $(old_scripts); do
    with_rights_for "$extension" install -m 644 "$script" "$extension/"
  done
}
old_remove() {
  local extension script
  extension=$("$PG_CONFIG" --sharedir)/extension
  for script in $(old_scripts); do
    with_rights_for "$extension" rm -f "$extension/$(basename "$script")"
  done
}

case ${1:-} in
  build) build ;;
  check) check ;;
  copy) copy ;;
  remove) remove ;;
  old-add) old_add ;;
  old-remove) old_remove ;;
  *) die "usage: scripts/install.sh build|check|copy|remove|old-add|old-remove" ;;
esac
