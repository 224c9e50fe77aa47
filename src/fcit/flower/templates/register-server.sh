#!/bin/sh
{% include "server.sh" %}
exec python3 -P -m fcit.flower.operate register "$own" "$from" "$@"
