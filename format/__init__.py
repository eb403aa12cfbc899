"""The `.ingot` file: byte container, graph codec, export and import of functions.

Modules: `canonical` (bounded, canonical MessagePack), `container` (prelude, header, blobs), `codec` (graphs
to sections and back), `signature` (call forms, dynamic shapes), `exporter`, `importer`, `summary` (what
`ingot inspect` shows), `mlx_names` (the vocabulary of callback export). `SPEC.md` describes the file for
readers in other languages.
"""
