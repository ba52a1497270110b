"""Chunk stores: where the bytes of chunks are durable."""
