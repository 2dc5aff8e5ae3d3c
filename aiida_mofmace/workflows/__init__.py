"""Work chains: the order of the calculations, the decisions between them, and their restarts."""
