"""The colour and marker of every method, the same in every report."""

COLOURS = {
    "disco": "#3f78b5",
    "finetune": "#e4694f",
    "lwf": "#56b4d9",
    "ewc": "#2f9e6e",
    "olora": "#a4508b",
    "moelora": "#c9a227",
    "l2p": "#8a6d3b",
    "hide": "#7a70c8",
    "zeroshot": "#98a1ac",
    "individual": "#77808c",
    "multitask": "#5f6874",
}
"""Told apart by colour-blind readers too."""

SPARE = ("#3aa6a0", "#d98bb0", "#8fae3c", "#b5533c", "#5b8def", "#9c755f")
MARKERS = {
    "disco": "o",
    "finetune": "v",
    "zeroshot": "s",
    "individual": "D",
    "multitask": "^",
}
SPARE_MARKERS = ("P", "X", "*", "<", ">", "p", "h", "d", "8")
