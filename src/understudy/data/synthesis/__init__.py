"""From answers to rows worth learning: stages that are plain functions over rows."""
