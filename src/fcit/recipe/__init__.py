"""A recipe (TOML) as validated values: one file a section, put together in `config`."""
