"""The rules of the IR: tables of small numbered checks, one table per kind of invariant."""
