"""Settings in other clothes: TAO's prototxt and YAML."""
