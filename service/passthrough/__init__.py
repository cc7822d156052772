"""OpenAI-compatible pass-through: what goes into a request before it is passed on, and how its answer comes back."""
