"""Language models taught by language models."""
