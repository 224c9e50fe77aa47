mkdir -p flower
cat > flower/config.toml <<END
[superlink]
default = "fcit"

[superlink.fcit]
address = "${FCIT_SERVER:-{{ host }}:{{ port }}}"
root-certificates = "$PWD/ca.crt"
END
