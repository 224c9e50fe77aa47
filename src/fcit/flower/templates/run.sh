#!/bin/sh
{% include "environment.sh" %}
{% include "connection.sh" %}
out="${FCIT_RUN:-$PWD/run-folder}"
exec flwr run app fcit --stream \
  --run-config "recipe=\"$PWD/recipe.toml\" out=\"$out\" changes=\"$*\""
