#!/bin/sh
{% include "server.sh" %}
exec python3 -P -m fcit.flower.operate status "$own" "${FCIT_RUN:-$PWD/run-folder}"
