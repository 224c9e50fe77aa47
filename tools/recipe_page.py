"""Write docs/recipe.md from the descriptions of the recipe's fields.

python tools/recipe_page.py
"""

from pathlib import Path

from fcit.recipe.keys import sections

PATH = Path(__file__).parents[1] / "docs" / "recipe.md"

HEAD = """# Recipe keys

<!-- Written by tools/recipe_page.py from the fields' descriptions: edit those, then run it again. -->

A recipe is a TOML file, such as [recipes/demo.toml](../recipes/demo.toml). Relative paths start at its
folder; those that `--set` gives start in the working folder. Every key has a default, an unknown key is
an error, and `--set section.key=value` sets any of them. `fcit.run` in Python also takes a table of the
same form. `fcit run --help-keys` prints this.

Keys that were renamed still load under their old names; one line on standard error says the new ones.
"""

NOTES = {
    "setting.stages": """A setting of your own has another name than the four. Its stages say what the
clients of each round learn ([recipes/own.toml](../recipes/own.toml) is a complete example):

```toml
[setting]
name = "my-setting"

[setting.tasks]                     # a task is one dataset or several
xray = ["Chest-X-Rays"]
lab = ["Lab-Sheets", "Lab-Plots"]

[[setting.stages]]
slots = ["xray"]                    # one task for all clients of a round
clients = 6                         # the first six clients
rounds = 3

[[setting.stages]]
slots = ["xray", "lab", "lab"]      # or one task for each of them (federation.per_round = 3)
```

A task may come again in a later stage. A dataset's samples are divided among the clients of all stages
that teach it. The benchmark's datasets and groups are tasks too.
""",
    "federation": """A *turn* is one client's training in one round.
""",
    "training": """Learning rates and schedule are the paper's, for a model of seven
billion parameters. Its batch is 128 for `task-*` and 64 for `cap-*`: use `recipes/paper`. The mini model
learns little with the defaults: the recipes of `recipes/mini` have `lr = 5e-3`, `projector_lr = 1e-4`,
`batch_size = 4` and `method.init_std = 0.05`.
""",
    "federation.optimizer_options": """For example `--set federation.optimizer=fedprox --set
federation.optimizer_options.mu=0.1`. Clients always train with AdamW. Changes per round are as small as
LoRA's learning rates, hence the small `lr` of the adaptive optimizers.
""",
    "method": """A method is a file of `src/fcit/methods/`, or one of your own. All methods have the
keys of `finetune`. (Of `method.projector`, fedex_lora, fedprotip, hide, l2p, moelora and olora take only
`shared` and `frozen`, ffa_lora all but `lora`. l2p has no LoRA, so `rank`, `scale` and `init_std` have no
effect there.) With `--method`, keys that the other method does not have are left out.
""",
}
"""What stands above a table."""


def page() -> str:
    """The page, as it should be."""
    parts = [HEAD]
    for title, keys in sections():
        parts.append(f"## {title}\n")
        parts += [NOTES[title]] if title in NOTES else []
        rows = [
            f"| `{key.name}` | {f'`{key.default}`' if key.default else ''} | {key.description} |"
            for key in keys
        ]
        parts.append("\n".join(["| key | default | what it does |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
    print(PATH)
