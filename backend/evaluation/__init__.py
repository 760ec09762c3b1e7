"""How good an answer is: expressions, clicks, scores."""
