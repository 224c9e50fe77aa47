#!/bin/sh
{% include "environment.sh" %}
data="${FCIT_DATA:-$PWD/data}"
exec python3 -P -m fcit.flower.supernode --superlink "${FCIT_SERVER:-{{ bracketed }}:{{ port }}}" \
  --root-certificates server.crt --auth-supernode-private-key client.key --port "${FCIT_PORT:-9094}" \
  --node-config "client={{ client }} data=\"$data\" memory=\"$PWD/memory\" ${FCIT_NODE_CONFIG:-}"
