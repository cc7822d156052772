"""What the Transformers engine is made of: loading, reading on shared caches, batches, and text that grows."""
