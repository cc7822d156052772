"""Formats of labelling tools, one module each; ``data.labels`` is the way in, ``data.export`` the way out."""
