"""The single memories of a feed-forward layer: what triggers them and what they promote."""
