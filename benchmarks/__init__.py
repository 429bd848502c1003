"""Studies of speed and quality, with their committed results."""
