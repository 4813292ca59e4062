"""One training step (forward and backward) against torchvision's Faster R-CNN on the same network."""

from peer import compare

if __name__ == "__main__":
    compare("Training step: ours against torchvision's.", training=True)
