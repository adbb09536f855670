"""The policy: what it is loaded from, how prompts become its tensors, what it says of completions, and its weights."""
