"""``python -m icl_select`` is the command ``icl-select``."""

from icl_select.cli import main

if __name__ == "__main__":
    main()
