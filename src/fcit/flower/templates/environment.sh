cd "$(dirname "$0")" || exit 1
export FLWR_HOME="$PWD/flower" FCIT_CACHE="${FCIT_CACHE:-$PWD/cache}"
export HF_HOME="${HF_HOME:-$PWD/huggingface}"
{% for key, value in quiet.items() %}
export {{ key }}={{ value }}
{% endfor %}
