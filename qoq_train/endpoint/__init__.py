"""A model behind an OpenAI-compatible server, asked and judged as our own."""
