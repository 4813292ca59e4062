"""What people look at: tables, curves, and images with boxes."""
