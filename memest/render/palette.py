"""One colour a category, in every picture: Okabe and Ito's palette, told apart by people who see no red or no green."""

from __future__ import annotations

COLOURS = {
    "parameter": "#0072B2",
    "buffer": "#999999",
    "optimizer_state": "#CC79A7",
    "input": "#009E73",
    "gradient": "#E69F00",
    "activation": "#56B4E9",
    "temporary": "#F0E442",
    "workspace": "#D55E00",
}
TERMINAL_COLOURS = {
    "parameter": "blue",
    "buffer": "bright_black",
    "optimizer_state": "magenta",
    "input": "green",
    "gradient": "yellow",
    "activation": "cyan",
    "temporary": "bright_yellow",
    "workspace": "red",
}
LETTERS = {name: name[0].upper() for name in COLOURS}  # where there is no colour; all differ
