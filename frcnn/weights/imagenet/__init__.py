"""ImageNet weights of torchvision and timm, under TAO's names and for a spec's pixels."""
