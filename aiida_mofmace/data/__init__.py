"""Data nodes: what is worth a node of its own."""
