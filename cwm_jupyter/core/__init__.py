"""Sessions, windows and what keeps them exact. Imports no front end and no engine."""
