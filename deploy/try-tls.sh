#!/usr/bin/env bash
# A TLS server on this machine whose key stays in the module of a running development gateway (`npm start`), and one visit to it.
#
#   deploy/try-tls.sh [PORT]      default: 8443; Ctrl-C ends the server
#
# Each command is printed before it runs. What stays is the key alias/localhost; the binding is revoked and the files are removed at the end.
set -euo pipefail

port=${1:-8443}
[[ $port =~ ^[0-9]+$ ]] || { printf 'usage: %s [PORT]\n' "$0" >&2; exit 2; }
checkout=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
work=$(mktemp -d "${TMPDIR:-/tmp}/hsmgate-try.XXXXXX")
binding=try-$$
hsmgate() { "$checkout/hsmgate" "$@"; }
run() {
  printf '\n$ %s\n' "${*//"$checkout/"/}"
  "$@"
}
clean_up() {
  [[ ! -v server ]] || kill "$server" 2>/dev/null || true
  hsmgate tls revoke "$binding" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

socket=$(hsmgate check | "$checkout/node_modules/node/bin/node" -p 'JSON.parse(require("node:fs").readFileSync(0, "utf8")).listen.offload.socket')
sed "s#/usr/lib/hsmgate/hsmgate.so#$checkout/native/build/hsmgate.so#; s#/run/hsmgate/sign.sock#$socket#" \
  "$checkout/deploy/openssl/openssl.cnf" >"$work/openssl.cnf"

hsmgate key show alias/localhost >/dev/null 2>&1 || run hsmgate tls create-key --spec ECC_NIST_P256 --alias localhost
run hsmgate tls self-signed --key localhost --san localhost --days 30 --out "$work/localhost.pem"
run hsmgate tls bind --name "$binding" --key localhost --user "$(id -u)" --out "$work/localhost.ref.pem"

run env OPENSSL_CONF="$work/openssl.cnf" openssl s_server -accept "$port" -cert "$work/localhost.pem" -key "$work/localhost.ref.pem" -www -quiet &
server=$!
until openssl s_client -connect "localhost:$port" </dev/null >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done
run openssl s_client -connect "localhost:$port" -verify_return_error -CAfile "$work/localhost.pem" </dev/null 2>/dev/null |
  grep -E '^\$|^(Peer signature type|Verification)'
printf '\nhttps://localhost:%s/ stays until Ctrl-C; its certificate is %s\n' "$port" "$work/localhost.pem"
wait "$server"
