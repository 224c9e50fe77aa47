#!/bin/sh
{% include "environment.sh" %}
{% include "connection.sh" %}
for key in "$@"; do
  flwr supernode register "$key" fcit --name "$(basename "$key" .pub)" || exit 1
done
