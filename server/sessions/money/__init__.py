"""What sessions may cost, and what they have cost."""
