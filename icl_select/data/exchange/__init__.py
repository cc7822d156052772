"""Formats of labelling tools, one module each; :mod:`icl_select.data.labels` is the way in."""
