"""An OpenAI-compatible server for a student or any local causal language model."""
