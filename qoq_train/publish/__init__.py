"""How a trained model leaves, and when it may not."""
