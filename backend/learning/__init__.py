"""Events, annotations, training and model versions."""
