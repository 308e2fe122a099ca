# tests/clients/cluster.sh - three Seshat nodes on free ports of 127.0.0.1; sourced by `run`.
#
#   start_cluster DIR    empty nodes, data and logs in DIR
#   await_cluster        starts nodes that died, waits until all agree who leads, and exports:
#     SESHAT_LEADER        host:port of the leader
#     SESHAT_FOLLOWERS     host:port host:port
#     SESHAT_PIDS          host:port=pid ..., for tests that kill a node
#   start_guarded DIR    a node of its own that asks for a password, and has a port for TLS, and exports:
#     SESHAT_GUARDED       host:port
#     SESHAT_GUARDED_TLS   host:port
#     SESHAT_PASSWORD
#     SESHAT_CERTIFICATES  a directory: ca.crt, and client.crt with client.key; other.crt is of another one
#   stop_cluster         ends exactly the processes started here
#
# With $tls_dir, which certificates.sh has filled, each node has a port for TLS as well: ${tls_port[1]} to
# ${tls_port[3]}. Clients there show a certificate of the authority ca.crt, such as client.crt.
#
# Needs: bash 4, redis-cli, and $python for a free port. The daemon is $SESHAT_BIN.

node_count=3
cluster_dir=
declare -A node_pid client_port peer_port tls_port

start_cluster() {
  local node ports
  cluster_dir=$1
  mapfile -t ports < <(free_ports $((3 * node_count)))
  [ ${#ports[@]} = $((3 * node_count)) ] || { echo "found no free ports" >&2; return 1; }
  for ((node = 1; node <= node_count; node++)); do
    client_port[$node]=${ports[3 * node - 3]}
    peer_port[$node]=${ports[3 * node - 2]}
    tls_port[$node]=${ports[3 * node - 1]}
  done
  for ((node = 1; node <= node_count; node++)); do start_node $node; done
}

# Below the range that the system takes ports of outgoing connections from: a node that was killed
# must get its port again.
free_ports() {
  "$python" - "$1" <<'PY'
import random, socket, sys
free = []
for port in random.sample(range(10000, 30000), 200):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            free.append(str(port))
        except OSError:
            continue
    if len(free) == int(sys.argv[1]):
        break
print("\n".join(free))
PY
}

start_node() {
  local node=$1 member members= tls=()
  for ((member = 1; member <= node_count; member++)); do
    members+=${members:+,}$member=127.0.0.1:${peer_port[$member]}
  done
  if [ -n "${tls_dir:-}" ]; then
    tls=(--client.tls_port "${tls_port[$node]}" --client.tls_ca_file "$tls_dir/ca.crt"
      --client.tls_cert_file "$tls_dir/node.crt" --client.tls_key_file "$tls_dir/node.key")
  fi
  "$SESHAT_BIN" "${tls[@]}" --id "$node" --data-dir "$cluster_dir/node-$node" \
    --client-addr "127.0.0.1:${client_port[$node]}" \
    --internal-addr "127.0.0.1:${peer_port[$node]}" \
    --cluster.initial_members "$members" --limits.min_free_disk_mb 0 \
    </dev/null >>"$cluster_dir/node-$node.log" 2>&1 &
  node_pid[$node]=$!
  disown $! # bash need not report that a test killed it
}

start_guarded() {
  local ports dir=$1
  mapfile -t ports < <(free_ports 2)
  "$(dirname "${BASH_SOURCE[0]}")/certificates.sh" "$dir/certificates" || return 1
  "$(dirname "${BASH_SOURCE[0]}")/certificates.sh" "$dir/others" || return 1
  cp "$dir/others/ca.crt" "$dir/certificates/other.crt"
  export SESHAT_GUARDED=127.0.0.1:${ports[0]} SESHAT_GUARDED_TLS=127.0.0.1:${ports[1]}
  export SESHAT_PASSWORD='a password of the tests' SESHAT_CERTIFICATES=$dir/certificates
  SESHAT_CLIENT_REQUIREPASS=$SESHAT_PASSWORD "$SESHAT_BIN" --data-dir "$dir/guarded" \
    --client-addr "$SESHAT_GUARDED" --limits.min_free_disk_mb 0 --client.tls_port "${ports[1]}" \
    --client.tls_ca_file "$dir/certificates/ca.crt" \
    --client.tls_cert_file "$dir/certificates/node.crt" \
    --client.tls_key_file "$dir/certificates/node.key" </dev/null >>"$dir/guarded.log" 2>&1 &
  node_pid[guarded]=$!
  disown $!
  local deadline=$((SECONDS + 20))
  while [ $SECONDS -lt $deadline ]; do
    if [ "$(REDISCLI_AUTH=$SESHAT_PASSWORD redis-cli -p "${ports[0]}" SET guarded yes 2>/dev/null)" = OK ]; then
      return 0
    fi
    sleep 0.05
  done
  echo "the guarded node did not serve within 20 s" >&2
  return 1
}

# All nodes connected, one of them leads, and the three tell the same of it.
await_cluster() {
  local node view views deadline=$((SECONDS + 20))
  for ((node = 1; node <= node_count; node++)); do
    # A script that was ended early may have left a node stopped.
    kill -CONT "${node_pid[$node]}" 2>/dev/null || start_node "$node"
  done
  while [ $SECONDS -lt $deadline ]; do
    views=()
    for ((node = 1; node <= node_count; node++)); do
      view=$(redis-cli -p "${client_port[$node]}" CLUSTER NODES 2>/dev/null |
        awk '{ sub(/@.*/, "", $2); sub(/^myself,/, "", $3); print $2, $3, $8 }' | sort)
      views+=("$view")
    done
    if [ "$(grep -c ' master connected$' <<<"${views[0]}")" = 1 ] &&
      [ "$(grep -c ' connected$' <<<"${views[0]}")" = $node_count ] &&
      [ "$(printf '%s\n' "${views[@]}" | sort | uniq | wc -l)" = $node_count ]; then
      export_cluster "${views[0]}"
      return 0
    fi
    sleep 0.05
  done
  echo "the nodes did not agree who leads within 20 s" >&2
  return 1
}

export_cluster() {
  local node
  SESHAT_LEADER=$(awk '$2 == "master" { print $1 }' <<<"$1")
  SESHAT_FOLLOWERS=$(awk '$2 != "master" { printf "%s%s", separator, $1; separator = " " }' <<<"$1")
  SESHAT_PIDS=
  for ((node = 1; node <= node_count; node++)); do
    SESHAT_PIDS+=${SESHAT_PIDS:+ }127.0.0.1:${client_port[$node]}=${node_pid[$node]}
  done
  export SESHAT_LEADER SESHAT_FOLLOWERS SESHAT_PIDS
}

stop_cluster() {
  local pid deadline=$((SECONDS + 8))
  for pid in "${node_pid[@]}"; do kill -TERM "$pid" 2>/dev/null; done
  for pid in "${node_pid[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do
      if [ $SECONDS -ge $deadline ]; then kill -KILL "$pid" 2>/dev/null; fi
      sleep 0.05
    done
  done
  node_pid=()
}
