"""Archives: windows in one portable, signed file, and conversations as text.

`format` says what lies in the file, `body` reads and writes its bytes, encrypted or not, `writer`
and `reader` the whole of it; `checks` is what a window in it must be like. `exporting` and
`importing` are between the file and the library; `archives` is what the manager has.
"""
