"""The notebook front end: magics, live output, completion."""
