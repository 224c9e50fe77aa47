"""A bitmap font drawn for this project: capitals, digits and a few marks, each in a cell of 8 pixels.

A glyph is seven rows high and at most six wide; the cell's remaining rim keeps letters apart.
"""

CELL = 8
"""Pixels from one character to the next, across and down."""

_DRAWN = """
A .XXX. X...X X...X XXXXX X...X X...X X...X
B XXXX. X...X X...X XXXX. X...X X...X XXXX.
C .XXXX X.... X.... X.... X.... X.... .XXXX
D XXXX. X...X X...X X...X X...X X...X XXXX.
E XXXXX X.... X.... XXXX. X.... X.... XXXXX
F XXXXX X.... X.... XXXX. X.... X.... X....
G .XXXX X.... X.... X..XX X...X X...X .XXXX
H X...X X...X X...X XXXXX X...X X...X X...X
I XXXXX ..X.. ..X.. ..X.. ..X.. ..X.. XXXXX
J ...XX ....X ....X ....X ....X X...X .XXX.
K X...X X..X. X.X.. XX... X.X.. X..X. X...X
L X.... X.... X.... X.... X.... X.... XXXXX
M X...X XX.XX X.X.X X.X.X X...X X...X X...X
N X...X XX..X XX..X X.X.X X..XX X..XX X...X
O .XXX. X...X X...X X...X X...X X...X .XXX.
P XXXX. X...X X...X XXXX. X.... X.... X....
Q .XXX. X...X X...X X...X X.X.X X..X. .XX.X
R XXXX. X...X X...X XXXX. X.X.. X..X. X...X
S .XXXX X.... X.... .XXX. ....X ....X XXXX.
T XXXXX ..X.. ..X.. ..X.. ..X.. ..X.. ..X..
U X...X X...X X...X X...X X...X X...X .XXX.
V X...X X...X X...X X...X .X.X. .X.X. ..X..
W X...X X...X X...X X.X.X X.X.X XX.XX X...X
X X...X X...X .X.X. ..X.. .X.X. X...X X...X
Y X...X X...X .X.X. ..X.. ..X.. ..X.. ..X..
Z XXXXX ....X ...X. ..X.. .X... X.... XXXXX
0 .XXX. X...X X..XX X.X.X XX..X X...X .XXX.
1 ..X.. .XX.. X.X.. ..X.. ..X.. ..X.. XXXXX
2 .XXX. X...X ....X ..XX. .X... X.... XXXXX
3 XXXX. ....X ....X .XXX. ....X ....X XXXX.
4 X..X. X..X. X..X. XXXXX ...X. ...X. ...X.
5 XXXXX X.... XXXX. ....X ....X X...X .XXX.
6 .XXX. X.... X.... XXXX. X...X X...X .XXX.
7 XXXXX ....X ...X. ...X. ..X.. ..X.. ..X..
8 .XXX. X...X X...X .XXX. X...X X...X .XXX.
9 .XXX. X...X X...X .XXXX ....X ....X .XXX.
. ..... ..... ..... ..... ..... .XX.. .XX..
! ..X.. ..X.. ..X.. ..X.. ..X.. ..... ..X..
? .XXX. X...X ....X ..XX. ..X.. ..... ..X..
- ..... ..... ..... XXXXX ..... ..... .....
+ ..... ..X.. ..X.. XXXXX ..X.. ..X.. .....
= ..... ..... XXXXX ..... XXXXX ..... .....
/ ....X ...X. ...X. ..X.. .X... .X... X....
: ..... .XX.. .XX.. ..... .XX.. .XX.. .....
% XX..X XX.X. ...X. ..X.. .X... .X.XX X..XX
$ ..X.. .XXXX X.X.. .XXX. ..X.X XXXX. ..X..
"""

GLYPHS: dict[str, tuple[str, ...]] = {
    name: tuple(rows) for name, *rows in (entry.split() for entry in _DRAWN.strip().splitlines())
} | {" ": (".....",) * 7}
"""A character to its seven rows of `X` (ink) and `.`, five to a row."""
