"""Training of LQVG, the paper's grounder."""
