"""What shapes and icons look like: parts in unit coordinates, drawn in order.

A part is (tone, kind, numbers...). Tones: `main`, `dark` and `light` (of the sprite's colour),
`ink` (black), `none` (a hole). Kinds: `ellipse` and `box` (left, top, right, bottom), `line`
(width, then points), `polygon` (points).
"""

from math import cos, pi, sin

Part = tuple[str, str, *tuple[float, ...]]

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring", "moon", "arrow",
)  # fmt: skip

SOLIDS = ("sphere", "cube", "cylinder")


def _star() -> tuple[float, ...]:
    corners: list[float] = []
    for index in range(10):
        far, turn = (0.5, 0.21)[index % 2], index * pi / 5
        corners += [0.5 + far * sin(turn), 0.53 - far * cos(turn)]
    return tuple(corners)


PARTS: dict[str, tuple[Part, ...]] = {
    "sphere": (
        ("dark", "ellipse", 0.04, 0.04, 0.96, 0.96),
        ("main", "ellipse", 0.04, 0.03, 0.86, 0.85),
        ("light", "ellipse", 0.22, 0.18, 0.46, 0.42),
    ),
    "cube": (
        ("main", "polygon", 0.04, 0.32, 0.66, 0.32, 0.66, 0.96, 0.04, 0.96),
        ("light", "polygon", 0.04, 0.32, 0.32, 0.06, 0.96, 0.06, 0.66, 0.32),
        ("dark", "polygon", 0.66, 0.32, 0.96, 0.06, 0.96, 0.68, 0.66, 0.96),
    ),
    "cylinder": (
        ("main", "ellipse", 0.14, 0.66, 0.86, 0.98),
        ("main", "box", 0.14, 0.2, 0.86, 0.82),
        ("dark", "box", 0.66, 0.2, 0.86, 0.86),
        ("light", "ellipse", 0.14, 0.02, 0.86, 0.38),
    ),
    "person": (
        ("ink", "ellipse", 0.34, 0.0, 0.66, 0.32),
        ("main", "polygon", 0.3, 0.34, 0.7, 0.34, 0.76, 0.7, 0.24, 0.7),
        ("main", "line", 0.1, 0.34, 0.4, 0.12, 0.62),
        ("main", "line", 0.1, 0.66, 0.4, 0.88, 0.62),
        ("ink", "box", 0.3, 0.7, 0.44, 1.0),
        ("ink", "box", 0.56, 0.7, 0.7, 1.0),
    ),
    "circle": (("main", "ellipse", 0.04, 0.04, 0.96, 0.96),),
    "square": (("main", "box", 0.08, 0.08, 0.92, 0.92),),
    "triangle": (("main", "polygon", 0.5, 0.05, 0.98, 0.92, 0.02, 0.92),),
    "star": (("main", "polygon", *_star()),),
    "cross": (("main", "box", 0.36, 0.05, 0.64, 0.95), ("main", "box", 0.05, 0.36, 0.95, 0.64)),
    "heart": (
        ("main", "ellipse", 0.02, 0.08, 0.52, 0.58),
        ("main", "ellipse", 0.48, 0.08, 0.98, 0.58),
        ("main", "polygon", 0.06, 0.44, 0.94, 0.44, 0.5, 0.97),
    ),
    "diamond": (("main", "polygon", 0.5, 0.0, 0.9, 0.5, 0.5, 1.0, 0.1, 0.5),),
    "ring": (("main", "ellipse", 0.04, 0.04, 0.96, 0.96), ("none", "ellipse", 0.3, 0.3, 0.7, 0.7)),
    "moon": (
        ("main", "ellipse", 0.08, 0.04, 1.0, 0.96),
        ("none", "ellipse", 0.4, -0.05, 1.2, 0.85),
    ),
    "arrow": (
        ("main", "box", 0.02, 0.37, 0.55, 0.63),
        ("main", "polygon", 0.5, 0.1, 0.98, 0.5, 0.5, 0.9),
    ),
    "house": (
        ("dark", "polygon", 0.5, 0.04, 1.0, 0.48, 0.0, 0.48),
        ("main", "box", 0.12, 0.46, 0.88, 0.96),
        ("light", "box", 0.4, 0.62, 0.6, 0.96),
    ),
    "tree": (
        ("dark", "box", 0.42, 0.6, 0.58, 0.98),
        ("main", "polygon", 0.5, 0.0, 0.84, 0.42, 0.16, 0.42),
        ("main", "polygon", 0.5, 0.2, 0.96, 0.74, 0.04, 0.74),
    ),
    "fish": (
        ("main", "ellipse", 0.02, 0.24, 0.74, 0.76),
        ("main", "polygon", 0.62, 0.5, 0.98, 0.18, 0.98, 0.82),
        ("light", "ellipse", 0.16, 0.38, 0.3, 0.52),
    ),
    "cup": (
        ("dark", "ellipse", 0.56, 0.3, 0.96, 0.72),
        ("none", "ellipse", 0.66, 0.4, 0.86, 0.62),
        ("main", "box", 0.12, 0.16, 0.7, 0.8),
        ("dark", "box", 0.04, 0.84, 0.78, 0.94),
        ("light", "box", 0.2, 0.24, 0.3, 0.7),
    ),
    "car": (
        ("main", "polygon", 0.2, 0.48, 0.34, 0.24, 0.66, 0.24, 0.82, 0.48),
        ("light", "polygon", 0.32, 0.46, 0.4, 0.31, 0.62, 0.31, 0.7, 0.46),
        ("main", "box", 0.02, 0.46, 0.98, 0.7),
        ("ink", "ellipse", 0.12, 0.58, 0.36, 0.84),
        ("ink", "ellipse", 0.64, 0.58, 0.88, 0.84),
    ),
    "bus": (
        ("main", "box", 0.02, 0.12, 0.98, 0.76),
        ("light", "box", 0.1, 0.22, 0.27, 0.46),
        ("light", "box", 0.35, 0.22, 0.52, 0.46),
        ("light", "box", 0.6, 0.22, 0.77, 0.46),
        ("ink", "ellipse", 0.12, 0.64, 0.36, 0.9),
        ("ink", "ellipse", 0.64, 0.64, 0.88, 0.9),
    ),
    "truck": (
        ("dark", "box", 0.02, 0.1, 0.62, 0.72),
        ("main", "polygon", 0.66, 0.34, 0.86, 0.34, 0.98, 0.54, 0.98, 0.72, 0.66, 0.72),
        ("light", "polygon", 0.73, 0.4, 0.83, 0.4, 0.9, 0.53, 0.73, 0.53),
        ("main", "box", 0.02, 0.62, 0.98, 0.74),
        ("ink", "ellipse", 0.12, 0.62, 0.38, 0.9),
        ("ink", "ellipse", 0.66, 0.62, 0.92, 0.9),
    ),
    "bike": (
        ("main", "ellipse", 0.0, 0.44, 0.44, 0.88),
        ("none", "ellipse", 0.09, 0.53, 0.35, 0.79),
        ("main", "ellipse", 0.56, 0.44, 1.0, 0.88),
        ("none", "ellipse", 0.65, 0.53, 0.91, 0.79),
        ("main", "line", 0.07, 0.22, 0.66, 0.36, 0.32, 0.68, 0.32, 0.78, 0.66),
        ("main", "line", 0.07, 0.36, 0.32, 0.5, 0.66, 0.68, 0.32, 0.64, 0.14, 0.8, 0.14),
        ("dark", "line", 0.09, 0.24, 0.22, 0.44, 0.22),
    ),
    "plane": (
        ("main", "ellipse", 0.4, 0.0, 0.6, 0.98),
        ("main", "polygon", 0.5, 0.3, 1.0, 0.62, 1.0, 0.72, 0.5, 0.58, 0.0, 0.72, 0.0, 0.62),
        ("dark", "polygon", 0.5, 0.76, 0.74, 0.96, 0.26, 0.96),
    ),
    "boat": (
        ("dark", "box", 0.46, 0.04, 0.53, 0.68),
        ("light", "polygon", 0.57, 0.08, 0.94, 0.6, 0.57, 0.6),
        ("main", "polygon", 0.42, 0.18, 0.42, 0.6, 0.12, 0.6),
        ("main", "polygon", 0.02, 0.66, 0.98, 0.66, 0.8, 0.94, 0.2, 0.94),
    ),
    "cat": (
        ("main", "polygon", 0.08, 0.02, 0.46, 0.34, 0.1, 0.52),
        ("main", "polygon", 0.92, 0.02, 0.54, 0.34, 0.9, 0.52),
        ("main", "ellipse", 0.06, 0.22, 0.94, 0.94),
        ("ink", "ellipse", 0.26, 0.44, 0.4, 0.6),
        ("ink", "ellipse", 0.6, 0.44, 0.74, 0.6),
        ("light", "polygon", 0.4, 0.66, 0.6, 0.66, 0.5, 0.78),
    ),
    "dog": (
        ("main", "ellipse", 0.16, 0.06, 0.84, 0.94),
        ("dark", "ellipse", 0.0, 0.1, 0.28, 0.72),
        ("dark", "ellipse", 0.72, 0.1, 1.0, 0.72),
        ("light", "ellipse", 0.32, 0.54, 0.68, 0.9),
        ("ink", "ellipse", 0.4, 0.54, 0.6, 0.7),
        ("ink", "ellipse", 0.32, 0.3, 0.43, 0.43),
        ("ink", "ellipse", 0.57, 0.3, 0.68, 0.43),
    ),
    "flower": (
        ("dark", "line", 0.08, 0.5, 0.5, 0.5, 0.98),
        ("main", "ellipse", 0.34, 0.0, 0.66, 0.32),
        ("main", "ellipse", 0.34, 0.44, 0.66, 0.76),
        ("main", "ellipse", 0.1, 0.22, 0.42, 0.54),
        ("main", "ellipse", 0.58, 0.22, 0.9, 0.54),
        ("light", "ellipse", 0.36, 0.24, 0.64, 0.52),
    ),
    "ball": (
        ("main", "ellipse", 0.04, 0.04, 0.96, 0.96),
        ("light", "line", 0.1, 0.5, 0.06, 0.5, 0.94),
        ("light", "line", 0.1, 0.06, 0.5, 0.94, 0.5),
    ),
    "hat": (
        ("main", "box", 0.26, 0.12, 0.74, 0.74),
        ("light", "box", 0.26, 0.54, 0.74, 0.66),
        ("main", "box", 0.02, 0.72, 0.98, 0.86),
    ),
    "key": (
        ("main", "ellipse", 0.0, 0.28, 0.44, 0.72),
        ("none", "ellipse", 0.13, 0.41, 0.31, 0.59),
        ("main", "box", 0.42, 0.44, 0.98, 0.57),
        ("main", "box", 0.86, 0.5, 0.98, 0.78),
        ("main", "box", 0.66, 0.5, 0.77, 0.72),
    ),
    "bird": (
        ("main", "ellipse", 0.16, 0.3, 0.8, 0.8),
        ("main", "ellipse", 0.04, 0.1, 0.42, 0.48),
        ("dark", "polygon", 0.0, 0.22, 0.08, 0.36, -0.1, 0.36),
        ("main", "polygon", 0.66, 0.46, 1.0, 0.3, 0.92, 0.62),
        ("dark", "polygon", 0.36, 0.5, 0.72, 0.48, 0.5, 0.7),
        ("ink", "ellipse", 0.14, 0.2, 0.25, 0.31),
        ("dark", "line", 0.05, 0.42, 0.78, 0.42, 0.98),
        ("dark", "line", 0.05, 0.54, 0.78, 0.54, 0.98),
    ),
    "umbrella": (
        ("main", "ellipse", 0.02, 0.06, 0.98, 1.02),
        ("none", "box", 0.0, 0.54, 1.0, 1.0),
        ("dark", "line", 0.07, 0.5, 0.5, 0.5, 0.9, 0.66, 0.9, 0.66, 0.8),
    ),
    "apple": (
        ("main", "ellipse", 0.06, 0.26, 0.6, 0.96),
        ("main", "ellipse", 0.4, 0.26, 0.94, 0.96),
        ("ink", "line", 0.08, 0.5, 0.34, 0.56, 0.08),
        ("dark", "ellipse", 0.56, 0.06, 0.86, 0.22),
    ),
    "clock": (
        ("main", "ellipse", 0.04, 0.04, 0.96, 0.96),
        ("light", "ellipse", 0.16, 0.16, 0.84, 0.84),
        ("ink", "line", 0.08, 0.5, 0.24, 0.5, 0.5, 0.68, 0.6),
    ),
    "lamp": (
        ("main", "polygon", 0.3, 0.06, 0.7, 0.06, 0.94, 0.5, 0.06, 0.5),
        ("dark", "box", 0.45, 0.5, 0.55, 0.86),
        ("dark", "box", 0.24, 0.84, 0.76, 0.96),
    ),
    "mushroom": (
        ("light", "box", 0.36, 0.48, 0.64, 0.96),
        ("main", "ellipse", 0.02, 0.04, 0.98, 1.0),
        ("none", "box", 0.0, 0.56, 0.36, 1.0),
        ("none", "box", 0.64, 0.56, 1.0, 1.0),
        ("light", "box", 0.36, 0.56, 0.64, 0.96),
        ("light", "ellipse", 0.2, 0.24, 0.4, 0.44),
        ("light", "ellipse", 0.58, 0.22, 0.78, 0.42),
    ),
    "chair": (
        ("main", "box", 0.16, 0.02, 0.3, 0.98),
        ("main", "box", 0.16, 0.5, 0.86, 0.64),
        ("main", "box", 0.72, 0.6, 0.86, 0.98),
        ("dark", "box", 0.3, 0.1, 0.4, 0.36),
    ),
}
"""Every sprite's parts, by name."""
