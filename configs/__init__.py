"""Campaign files that ship with the package; this file only makes the folder one that a wheel can carry."""
