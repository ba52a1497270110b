"""The Jupyter Server extension: the manager over HTTP, for the panel and for programs.

`table` lists all routes; the handlers and the OpenAPI description are both made from it.
"""
