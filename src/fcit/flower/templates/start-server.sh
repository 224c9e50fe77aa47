#!/bin/sh
{% include "server.sh" %}
exec python3 -P -m fcit.flower.superlink --host "$host" --port "$port" \
  --ssl-ca-certfile server.crt --ssl-certfile server.crt --ssl-keyfile server.key \
  --enable-supernode-auth --database flower/state.db --disable-runtime-dependency-installation
