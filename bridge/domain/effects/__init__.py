"""What each answer changes, a module for each kind of call. The tables of design.md, written once."""
