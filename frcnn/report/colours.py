"""One colour per class, the same in plots and drawings, told apart by colour-blind readers too."""

# Okabe and Ito (2008) without black and yellow, which are lost on photographs and on paper.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def class_colour(label: int) -> str:
    """Colour of a class id; the seventh class begins anew."""
    return PALETTE[label % len(PALETTE)]
