"""Photos and frames, and how they become pixels."""
