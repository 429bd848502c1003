"""Speed and quality studies with their committed results."""
