"""Markdown for the terminal while it arrives: `stream` is what others use, and nothing written is redrawn.

Characters to text (controls), text to blocks (starts, stream, code, table), blocks to spans (inline,
delimiters), spans to lines (flow, cells).
"""
