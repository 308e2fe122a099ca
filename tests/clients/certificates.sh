#!/usr/bin/env bash
# tests/clients/certificates.sh - an authority, and certificates for nodes and clients, for tests.
#
#   tests/clients/certificates.sh DIR
#
# Makes DIR/ca.crt, DIR/node.crt with DIR/node.key (for localhost and 127.0.0.1), and DIR/client.crt with
# DIR/client.key. They are good for 30 days. Needs: openssl.
set -euo pipefail

if [ $# != 1 ] || [ "$1" = --help ]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  [ "${1:-}" = --help ]
  exit
fi
mkdir -p "$1"
cd "$1"
umask 077

new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

openssl req -x509 "${new_key[@]}" -days 30 -subj "/CN=seshat test authority" \
  -keyout ca.key -out ca.crt 2>/dev/null
for name in node client; do
  openssl req "${new_key[@]}" -subj "/CN=$name" -keyout $name.key -out $name.csr 2>/dev/null
  printf 'subjectAltName=DNS:localhost,DNS:seshat-node,IP:127.0.0.1\n' > $name.ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
    -extfile $name.ext -out $name.crt 2>/dev/null
done
