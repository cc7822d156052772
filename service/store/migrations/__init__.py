"""Steps from one schema to the next; each runs once, in one transaction."""
