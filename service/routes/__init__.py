"""The routes, one file a noun; each turns a request into a call of the store or of an engine."""
