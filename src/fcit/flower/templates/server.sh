{% include "environment.sh" %}
host="${FCIT_HOST:-{{ host }}}" port="${FCIT_PORT:-{{ port }}}"
case "$host" in
  0.0.0.0) own="127.0.0.1:$port" ;;
  ::) own="[::1]:$port" ;;
  *:*) own="[$host]:$port" ;;
  *) own="$host:$port" ;;
esac
own="${FCIT_SERVER:-$own}"
