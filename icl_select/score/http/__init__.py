"""What the HTTP engine is made of: a client with retries, limits on rate and spend, and the ways to read answers."""
