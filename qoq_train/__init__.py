"""Reinforcement learning with verifiable rewards on a built corpus: DRPO and the critic-free methods beside it."""
