from="$PWD"
cd "$(dirname "$0")" || exit 1
umask 077
export FLWR_HOME="$PWD/flower" FCIT_CACHE="${FCIT_CACHE:-$PWD/cache}"
export HF_HOME="${HF_HOME:-$PWD/huggingface}"
if [ -d {{ install }}/venv/bin ]; then PATH="{{ install }}/venv/bin:$PATH"; fi
{% for key, value in quiet.items() %}
export {{ key }}={{ value }}
{% endfor %}
