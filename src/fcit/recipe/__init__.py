"""A recipe (TOML) as validated values: `config` puts the sections together; `keys` tells their
descriptions, `renamed` their old names. Some sections are defined in the room that uses them: `Training`
and `Federation` in rounds, `Privacy` in aggregation.
"""
