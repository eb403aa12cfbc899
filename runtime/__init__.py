"""Run it: image loader, caches, storage, executables, the reference interpreter."""
