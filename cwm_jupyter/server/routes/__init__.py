"""Routes: what each operation does, a file for each topic. `cwm_jupyter.server.table` has all."""
