"""State: the database, and the derived files beside it."""
