"""The `.ingot` file: byte container, graph codec, export and import of functions.

Modules: `canonical` (bounded, canonical MessagePack), `container` (prelude, header, blobs), `codec` (graphs
to sections and back), `exporter`, `importer`, `mlx_names` (the vocabulary of callback export). `SPEC.md`
describes the file for readers in other languages.
"""
