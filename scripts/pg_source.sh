#!/usr/bin/env bash
# Builds a PostgreSQL of a major that this machine's apt has no package of, once, outside the repository:
#   pg_source.sh 17      into /opt/pg_usher/pg17 (root) or ~/.cache/pg_usher/pg17, or below USHER_PG_CACHE
# The source is the source package of the distribution's release that has this major, fetched by apt from where this
# machine's own packages come from, so it is signed and checked as they are. Nothing below /etc/apt is changed.
#   USHER_PG_SUITE=…     that release's name, if it is not known here
. "$(dirname "$0")/lib.sh"
major=${1:-}
[[ " $MAJORS " == *" $major "* ]] || die "usage: scripts/pg_source.sh <major>, one of $MAJORS"
cache=$(pg_cache)
prefix=$cache/pg$major
if [ -x "$prefix/bin/pg_config" ]; then
  say "there already: $("$prefix/bin/pg_config" --version) in $prefix"
  exit
fi
command -v apt-get >/dev/null || die "no apt-get here; install PostgreSQL $major with its headers and name it: PG_CONFIG=…"

# shellcheck source=/dev/null
. /etc/os-release
here=${VERSION_CODENAME:-}
[ -n "$here" ] || die "/etc/os-release names no release (VERSION_CODENAME); install PostgreSQL $major and name it: PG_CONFIG=…"
# The first release with this major; a later one would do if its compiler and libraries are not too new for the source.
case ${ID:-} in
  debian) releases="15=bookworm 17=trixie 18=forky" ;;
  ubuntu) releases="16=noble 17=plucky 18=resolute" ;;
  *) releases="" ;;
esac
suite=${USHER_PG_SUITE:-$(tr ' ' '\n' <<<"$releases" | sed -n "s/^$major=//p")}
[ -n "$suite" ] || die "no release of ${ID:-this system} is known here to have PostgreSQL $major: name one by USHER_PG_SUITE, or a PostgreSQL by PG_CONFIG"

(umask 022 && mkdir -p "$cache") || die "$cache cannot be made; name another place by USHER_PG_CACHE"
# beside the place where it will be, so that the last step is a rename and a half-built one is never taken for a whole one
work=$(mktemp -d "$cache/.pg$major.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# ---- the sources list: this machine's, with the other release's name ------------------------------------------

mkdir -p "$work/parts" "$work/archives/partial"
# write_list "<endings>": which of "", -updates, -security are taken over
write_list() {
  local endings=$1 file at=0
  rm -f "$work/parts"/*
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] || continue
    at=$((at + 1))
    case $file in
      *.list)
        # deb [options] URI suite components
        awk -v here="$here" -v there="$suite" -v endings="$endings" '
          BEGIN { n = split(endings, e, ","); for (i = 1; i <= n; i++) wanted[here (e[i] == "main" ? "" : "-" e[i])] = 1 }
          $1 == "deb" { at = 2; if ($2 ~ /^\[/) while (at < NF && $at !~ /\]$/) at++; if ($2 ~ /^\[/) at++
            if (!($(at + 1) in wanted)) next
            $1 = "deb-src"; sub("^" here, there, $(at + 1)); if (!seen[$0]++) print }' "$file" >"$work/parts/$at.list"
        ;;
      *.sources)
        awk -v here="$here" -v there="$suite" -v endings="$endings" '
          BEGIN { RS = ""; FS = "\n"; n = split(endings, e, ","); for (i = 1; i <= n; i++) wanted[here (e[i] == "main" ? "" : "-" e[i])] = 1 }
          { types = suites = rest = ""; off = 0
            for (i = 1; i <= NF; i++) {
              if ($i ~ /^#/) continue
              name = tolower($i); sub(/:.*/, "", name); value = $i; sub(/^[^:]*:[ \t]*/, "", value)
              if (name == "types") types = " " value " "
              else if (name == "enabled") off = tolower(value) ~ /^(no|false|off|0)/
              else if (name == "suites") { m = split(value, s, /[ \t]+/); for (k = 1; k <= m; k++) if (s[k] in wanted) { sub("^" here, there, s[k]); suites = suites " " s[k] } }
              else rest = rest $i "\n"
            }
            if (!off && types ~ / deb / && suites != "") printf "Types: deb-src\nSuites:%s\n%s\n", suites, rest }' "$file" >"$work/parts/$at.sources"
        ;;
    esac
    [ -s "$work/parts/$at.list" ] || rm -f "$work/parts/$at.list"
    [ -s "$work/parts/$at.sources" ] || rm -f "$work/parts/$at.sources"
  done
  [ -n "$(ls -A "$work/parts")" ]
}
apt_there=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::State::lists="$work/lists"
  -o Dir::Cache::archives="$work/archives" -o Dir::Cache::pkgcache="" -o Dir::Cache::srcpkgcache="" -o APT::Update::Error-Mode=any)
# apt's own user may not write into a directory of ours
! is_root || apt_there+=(-o APT::Sandbox::User=root)

# The newest that can be fetched: an index may name what its mirror has not, or not yet.
fetch() {
  rm -rf "$work/lists" "$work/source"
  mkdir -p "$work/lists/partial" "$work/source"
  write_list "$1" && "${apt_there[@]}" update && (cd "$work/source" && "${apt_there[@]}" source --download-only "postgresql-$major")
}
say "fetching PostgreSQL $major as the source package of $suite"
fetched=''
for parts in main,updates,security main,updates main; do
  if fetch "$parts"; then
    fetched=yes
    break
  fi
  say "that did not work with the parts $parts of $suite"
done
[ -n "$fetched" ] || die "the source package postgresql-$major cannot be had from where the packages of $here come from, under the name $suite; \
name another release by USHER_PG_SUITE, or a PostgreSQL that is there by PG_CONFIG"

# ---- build -----------------------------------------------------------------------------------------------------

archive=$(find "$work/source" -name "postgresql-${major}_*.orig.tar.*" ! -name '*.asc' | head -n 1)
[ -n "$archive" ] || die "the source package has no archive of PostgreSQL's own"
mkdir "$work/build"
tar -xf "$archive" -C "$work/build" --strip-components 1
cd "$work/build"
say "configuring $(sed -n "s/^PACKAGE_STRING='\(.*\)'/\1/p" configure) for $prefix"
./configure --quiet --prefix="$prefix" --with-openssl --with-icu
jobs=$(nproc 2>/dev/null || echo 2)
say "compiling"
# As if typed by hand: inside another make, PostgreSQL's makefiles leave out the headers that they generate.
unset MAKELEVEL MAKEFLAGS MFLAGS MAKEOVERRIDES PG
make --silent -j "$jobs" world-bin
say "installing"
make --silent DESTDIR="$work/image" install-world-bin
for file in bin/postgres bin/pg_config bin/psql; do
  [ -x "$work/image$prefix/$file" ] || die "the build made no $file"
done
# Somebody else was faster: that one stands.
[ -e "$prefix" ] || mv -T "$work/image$prefix" "$prefix"
say "$("$prefix/bin/pg_config" --version) is in $prefix"
