#!/bin/sh
{% include "environment.sh" %}
exec python3 -m fcit.flower.superlink --host "${FCIT_HOST:-0.0.0.0}" --port "${FCIT_PORT:-{{ port }}}" \
  --ssl-ca-certfile ca.crt --ssl-certfile server.crt --ssl-keyfile server.key \
  --enable-supernode-auth --database flower/state.db --disable-runtime-dependency-installation
