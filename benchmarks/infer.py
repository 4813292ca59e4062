"""One inference (image to detections) against torchvision's Faster R-CNN on the same network."""

from peer import compare

if __name__ == "__main__":
    compare("Inference: ours against torchvision's.", training=False)
