#!/usr/bin/env bash
# Makes a checkout ready: `deploy/setup.sh run` for `npm start`, `deploy/setup.sh test` for `npm test`, `deploy/setup.sh relay` for a web host
# whose gateways are elsewhere: the relay and the OpenSSL provider, without software HSM and without what only development needs.
#
# It looks first, prints what is missing and why, and installs only that, from the Debian and npm registries and nowhere else.
# What is done leaves a stamp inside node_modules, so that a second run starts neither npm nor apt-get. It starts no service.
# Two set-ups at once are safe: the second waits for the first. Sourced, it only defines its functions.
set -euo pipefail

# package | commands or absolute file patterns, one of which proves it present | why
needed_to_relay=(
  'g++          | g++                         | compiles the native addon'
  'make         | make                        | drives the native builds'
  'libssl-dev   | /usr/include/openssl/provider.h /usr/include/*/openssl/provider.h | headers of the OpenSSL that TLS servers use; the provider is compiled against them'
)
needed_to_run=(
  'softhsm2     | /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so | the software HSM: a PKCS#11 module for machines without hardware'
  'python3      | python3                     | node-gyp, which builds pkcs11js, is written in it'
)
needed_to_test=(
  'awscli        | aws                        | an unmodified AWS client that the tests drive'
  'python3-boto3 | /usr/lib/python3/dist-packages/boto3 | another one, which parses answers by rules of its own'
  'curl          | curl                       | an HTTP and TLS client, also with client certificates'
  'openssl       | openssl                    | checks signatures, public keys and OAEP independently'
  'opensc        | pkcs11-tool                | looks at tokens from outside the gateway'
  'libnss3-tools | certutil                   | makes databases of NSS softokn, a second PKCS#11 module for the tests, and has a TLS client'
  'gnutls-bin    | gnutls-cli                 | a TLS client of another library'
  'apache2-bin   | /usr/sbin/apache2          | a TLS server that the tests drive; this package starts no service'
  'liblua5.3-0   | /usr/lib/*/liblua5.3.so.0 /usr/lib/liblua5.3.so.0 | a library of HAProxy, which the tests drive'
  'libopentracing-c-wrapper0 | /usr/lib/*/libopentracing-c-wrapper.so.0 /usr/lib/libopentracing-c-wrapper.so.0 | another one'
  'postgresql    | /usr/lib/postgresql/*/bin/postgres | a database server for several gateways; the tests start servers of their own'
  'clang-format  | clang-format               | checks the format of C and C++'
  'shellcheck    | shellcheck                 | checks shell scripts'
)

# vitest's compiled parts are skipped without a word by npm on an older Node; afterwards everything runs on the project's own Node 24.
oldest_node=20.19

say() { printf 'hsmgate: %s\n' "$*"; }

# Prints the cause, then the remedy, and ends the set-up.
give_up() {
  printf 'hsmgate: set-up stopped: %s\n' "$1" >&2
  printf '  remedy: %s\n' "$2" >&2
  exit 1
}

trim() {
  local text=$1
  text=${text#"${text%%[![:space:]]*}"}
  printf '%s' "${text%"${text##*[![:space:]]}"}"
}

# Whether one of the given commands or files exists.
is_present() {
  local proof file
  for proof in $1; do
    case $proof in
      /*) for file in $proof; do [[ -e $file ]] && return 0; done ;;
      *) type -P "$proof" >/dev/null && return 0 ;;
    esac
  done
  return 1
}

# Fills `missing` with the package names of the absent rows, and `reasons` with a line for each.
find_missing() {
  local row package proof why
  missing=() reasons=()
  for row in "$@"; do
    IFS='|' read -r package proof why <<<"$row"
    is_present "$proof" && continue
    missing+=("$(trim "$package")")
    reasons+=("$(printf '  %-14s %s' "$(trim "$package")" "$(trim "$why")")")
  done
}

install_debian_packages() {
  local -a missing reasons as_root=()
  local install
  find_missing "$@"
  ((${#missing[@]})) || return 0

  say 'Debian packages missing on this machine:'
  printf '%s\n' "${reasons[@]}"
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  type -P apt-get >/dev/null ||
    give_up "missing: ${missing[*]}; this machine has no apt-get" 'install what provides them, then run the same command again (on Debian: '"$install"')'
  if ((EUID != 0)); then
    type -P sudo >/dev/null || give_up "missing: ${missing[*]}; installing them needs root, and there is no sudo" "as root: apt-get update && $install"
    as_root=(sudo)
  fi

  [[ " ${missing[*]} " != *' postgresql '* ]] || forbid_cluster
  say "installing them: ${as_root[*]:+sudo }$install"
  "${as_root[@]}" apt-get -qq update || say 'apt-get update failed; trying with the package lists that are here'
  # shellcheck disable=SC2086 # the printed command is the command that runs
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive ${install/apt-get/apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0} >/dev/null ||
    give_up "missing: ${missing[*]}; apt-get could not install them (its own words are above)" "as root: apt-get update && $install"
  find_missing "$@"
  ((${#missing[@]} == 0)) || give_up "still missing after apt-get: ${missing[*]}" "as root: apt-get install --reinstall ${missing[*]}"
}

# Without it the Debian package makes a database cluster of its own and starts a service for it.
forbid_cluster() {
  local -a as_root=()
  local folder=/etc/postgresql-common/createcluster.d
  ((EUID == 0)) || as_root=(sudo)
  say "no database cluster is to be made by the package: create_main_cluster = false in $folder/hsmgate.conf"
  "${as_root[@]}" mkdir -p "$folder"
  "${as_root[@]}" tee "$folder/hsmgate.conf" <<<'create_main_cluster = false' >/dev/null
}

# The machine's own Node is only good enough to run npm; a PATH made by `npm run` would put the project's first, which npm ci removes.
path_without_project() {
  local entry kept=''
  local IFS=:
  for entry in $PATH; do
    [[ $entry == */node_modules/.bin || $entry == */node_modules/node/bin ]] || kept+=${kept:+:}$entry
  done
  printf '%s' "$kept"
}

require_npm() {
  local remedy="install Node.js $oldest_node or later with npm (https://nodejs.org/en/download), then run the same command again"
  local version major minor
  type -P node >/dev/null || give_up 'missing: node (any recent Node.js serves to fetch the project'"'"'s own)' "$remedy"
  type -P npm >/dev/null || give_up 'missing: npm' "$remedy"
  version=$(node --version)
  IFS=. read -r major minor _ <<<"${version#v}"
  ((major > ${oldest_node%.*} || (major == ${oldest_node%.*} && minor >= ${oldest_node#*.}))) ||
    give_up "Node.js is $version; its npm cannot install the project" "$remedy"
}

is_stamped() { [[ -f $1 && $(<package-lock.json) == "$(<"$1")" ]]; }

# npm ci removes what was there, stamps included, so at most one of them is there.
install_npm_packages() {
  local stamp=node_modules/.hsmgate-lock command='npm ci --ignore-scripts --include=dev --include=optional'
  is_stamped "$stamp" && return
  if [[ $1 == relay ]]; then
    stamp=node_modules/.hsmgate-lock-relay
    command='npm ci --ignore-scripts --omit=dev --include=optional'
    is_stamped "$stamp" && return
  fi
  [[ ! -L node_modules ]] ||
    give_up "node_modules is a symbolic link, and npm would empty the folder it points to, $(readlink node_modules)" 'rm node_modules, then run the same command again'
  require_npm
  say "installing npm packages, as package-lock.json names them: $command"
  $command --no-audit --no-fund --loglevel=error >/dev/null || give_up 'npm could not install the packages (its own words are above)' "$command"
  printf '%s\n' "$(<package-lock.json)" >"$stamp"
}

# The npm package `node` brings the Node that runs hsmgate, with its headers. Its one install script fetches it through npm.
install_node() {
  local command='npm rebuild node --ignore-scripts=false'
  [[ -x node_modules/node/bin/node ]] && is_present "$PWD/node_modules/node/node_modules/node-linux-*/include/node/node_api.h" && return
  require_npm
  say "fetching the project's own Node.js from the npm registry: $command"
  $command --loglevel=error >/dev/null || give_up 'npm could not fetch Node.js (its own words are above)' "$command"
  node_modules/node/bin/node --version >/dev/null || give_up "the project's own Node.js does not run here ($(uname -sm))" 'use a glibc-based Linux on x86-64 or arm64'
}

build_pkcs11js() {
  local command='npm rebuild pkcs11js --ignore-scripts=false' headers
  [[ -e node_modules/pkcs11js/build/Release/pkcs11.node ]] && return
  headers=$(printf '%s' "$PWD"/node_modules/node/node_modules/node-linux-*)
  say "building pkcs11js: npm_config_nodedir=$headers $command"
  PATH=$PWD/node_modules/node/bin:$PATH npm_config_nodedir=$headers $command --loglevel=error >/dev/null ||
    give_up 'pkcs11js could not be built (the words of its build are above)' "npm_config_nodedir=$headers $command"
}

# unpack_program COMMAND PACKAGE PATH WHY: takes one program out of a Debian package. Nothing is installed, so no server starts.
unpack_program() {
  local command=$1 from=$2 member=$3 why=$4 folder=node_modules/.cache/$1 package
  local -a as_root=()
  if type -P "$command" >/dev/null || [[ -x /usr/sbin/$command || -x $folder/$command ]]; then return 0; fi
  type -P apt-get >/dev/null || give_up "missing: $command; this machine has no apt-get" "put $command on the PATH, then run the same command again"
  say "fetching $command, $why, out of the Debian package $from; nothing is installed"
  ((EUID == 0)) || as_root=(sudo)
  rm -rf "$folder.new" && mkdir -p "$folder.new"
  (
    cd "$folder.new"
    apt-get -qq download "$from" 2>/dev/null || { "${as_root[@]}" apt-get -qq update && apt-get -qq download "$from"; }
    for package in "$from"_*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --strip-components=3 ".$member"; done
    rm -f "$from"_*.deb
  ) || give_up "missing: $command; apt-get could not fetch the package $from (its own words are above)" "apt-get update && apt-get download $from"
  rm -rf "$folder" && mv "$folder.new" "$folder"
}

# make decides what is out of date.
build_native() {
  local command="make --silent --directory=native $1"
  [[ -f native/Makefile ]] || return 0
  $command --question 2>/dev/null && return
  say "building natively: $command"
  $command --jobs="$(nproc)" || give_up 'the native parts could not be built (the words of their build are above)' "$command"
}

set_up() {
  local purpose=$1 lock
  local -a packages=("${needed_to_relay[@]}")
  [[ $purpose == relay ]] || packages+=("${needed_to_run[@]}")
  [[ $purpose == test ]] && packages+=("${needed_to_test[@]}")
  PATH=$(path_without_project)
  if type -P flock >/dev/null; then
    exec {lock}<deploy/setup.sh
    flock "$lock"
  fi
  install_debian_packages "${packages[@]}"
  install_npm_packages "$purpose"
  install_node
  # A relay opens no PKCS#11 module.
  [[ $purpose == relay ]] || build_pkcs11js
  # The tests also need the module that makes other modules fail.
  if [[ $purpose == test ]]; then
    unpack_program promtool prometheus /usr/bin/promtool 'which checks metrics and alert rules'
    unpack_program nginx nginx /usr/sbin/nginx 'a TLS server that the tests drive'
    unpack_program haproxy haproxy /usr/sbin/haproxy 'another one'
    build_native all
  else
    build_native 'addon provider'
  fi
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  case ${1-} in
    run | test | relay) ;;
    *)
      printf 'usage: deploy/setup.sh run|test|relay\n' >&2
      exit 2
      ;;
  esac
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  set_up "$1"
fi
