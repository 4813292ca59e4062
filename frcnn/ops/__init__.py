"""Pure tensor functions that a detector is made of."""
