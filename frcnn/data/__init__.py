"""Data: labels and records become a columnar index, the index becomes batches of network input."""
