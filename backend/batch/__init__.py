"""Many tasks without a server: predicting, warming, ranking."""
